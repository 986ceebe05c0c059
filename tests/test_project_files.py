"""What stands in several files of the project says the same, and links lead somewhere."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from tools.site import LINK, build, linked, pages

from tests.house.source import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def load(path: str) -> dict:
    """A YAML file of the repository."""
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_version_is_one() -> None:
    assert load("CITATION.cff")["version"] == PROJECT["project"]["version"]


def test_what_is_cited_is_the_project() -> None:
    cited = load("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["license"] == PROJECT["project"]["license"] and cited["title"].startswith("Umbel")


def test_a_commit_is_checked_by_what_ci_checks() -> None:
    [local] = load(".pre-commit-config.yaml")["repos"]
    entries = {hook["id"]: hook["entry"] for hook in local["hooks"]}
    assert local["repo"] == "local"
    for line in ("ruff check", "ruff format --check", "mypy", "python -m tools.site"):
        assert re.search(rf"^ *{line}( |$)", CI, re.M), line
        assert any(entry.startswith(line) for entry in entries.values()), line


def test_the_workflow_runs_ci() -> None:
    steps = load(".github/workflows/ci.yml")["jobs"]["all"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda p: p.stem)
def test_an_issue_form_asks_for_doctor_and_the_plan(path: Path) -> None:
    form = load(str(path))
    if path.stem == "config":
        assert form == {"blank_issues_enabled": False}
        return
    asked = [part for part in form["body"] if part["type"] == "textarea"]
    text = " ".join(f"{part['attributes']['label']} {part['attributes'].get('description', '')}" for part in asked)
    assert "umbel doctor" in text and re.search(r"umbel (plan|report)", text)
    assert len({part["id"] for part in asked}) == len(asked)


def test_every_page_has_a_place_on_the_site() -> None:
    config = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    placed = list(_leaves(config["project"]["nav"]))
    assert len(placed) == len(set(placed))
    assert {str(page.relative_to(ROOT)) for page in pages()} == set(placed)


def _leaves(nav: list) -> list[str]:
    return [
        leaf
        for entry in nav
        for value in entry.values()
        for leaf in (_leaves(value) if isinstance(value, list) else [value])
    ]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    missing = [str(target) for target in linked(page) if not target.exists()]
    assert not missing


def test_links_are_found() -> None:
    text = 'a [b](c.md#d) ![e](f.svg) <img src="g.png"> [h](https://i.org) [j](#k)'
    assert [m[1] or m[2] for m in LINK.finditer(text)] == ["c.md", "f.svg", "g.png", "https://i.org"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("zensical") is None, reason="the builder of the site is not installed (extra: docs)")
def test_the_site_builds_without_a_warning() -> None:
    assert build() == 0
    site = ROOT / "build" / "site"
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    wanted = [(page, src) for page, html in pages.items() for src in re.findall(r"<img [^>]*src=\"([^\":]+)\"", html)]
    assert wanted and not [(page, src) for page, src in wanted if not (page.parent / src).is_file()]
    assert (site / "docs" / "site.css").is_file() and "site.css" in pages[site / "docs" / "options.html"]

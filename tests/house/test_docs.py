"""What pages and the package's metadata say of the code is true: passes that can be left out, fields, packages."""

from __future__ import annotations

import ast
import re

from tests.house.source import ROOT, imports
from umbel.ir.body import SAMPLING_FIELDS
from umbel.plan.planner import PASSES


def test_the_overview_lists_the_passes_that_can_be_left_out() -> None:
    page = (ROOT / "docs" / "overview.md").read_text(encoding="utf-8")
    table = page.split("| pass | decides |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == set(PASSES)


def test_the_readme_lists_the_sampling_fields() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.split(r"named\s+as\s+in\s+vLLM:", page)[1].split(". Its other")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == SAMPLING_FIELDS


def requirements(section: str) -> dict[str, set[str]]:
    """The lists of one section of pyproject.toml, as names of modules."""
    body = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split(f"\n[{section}]\n")[1].split("\n[")[0]
    found = re.findall(r"^([\w-]+) = (\[.*?\])$", body, re.M | re.S)
    return {
        name: {re.split(r"[^\w-]", text)[0].replace("-", "_") for text in ast.literal_eval(wanted)}
        for name, wanted in found
    }


def test_the_package_asks_for_nothing_that_it_does_not_import() -> None:
    used = {target.split(".")[0] for found in imports().values() for target in found}
    dependencies = requirements("project")["dependencies"]
    assert "torch" in dependencies and dependencies <= used
    for extra, wanted in requirements("project.optional-dependencies").items():
        assert extra in ("test", "docs") or wanted <= used, extra

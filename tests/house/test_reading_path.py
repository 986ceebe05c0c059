"""The core path that docs/READING.md names is short enough for an afternoon, and complete: what its files import is on
it too, or is named with what it is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house.source import ROOT, SOURCE, imports, modules

LIMIT = 4_500
PACKAGE = SOURCE / "umbel"
PART = re.compile(r"^## \d+\. [^(\n]+\((\d+) lines\)\n(.*?)(?=^## )", re.S | re.M)
GUIDE = (ROOT / "docs" / "READING.md").read_text(encoding="utf-8")
LISTED = {(ROOT / "docs" / link).resolve() for link in re.findall(r"^- \[.*?\]\((\.\./src/[^)]+)\)", GUIDE, re.M)}
SKIPPED = {
    (PACKAGE / name).resolve()
    for paragraph in re.findall(r"^You may skip (.*?)\n\n", GUIDE, re.S | re.M)
    for name in re.findall(r"`([\w/]+\.py)`", paragraph)
}


def lines(path: Path) -> int:
    """Lines that are not blank."""
    return sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def parts() -> list[tuple[int, list[Path]]]:
    """Per section: the lines it claims, and its files."""
    return [
        (int(claim), [ROOT / "docs" / link for link in re.findall(r"\]\((\.\./src/[^)]+)\)", body)])
        for claim, body in PART.findall(GUIDE)
    ]


def imported() -> dict[Path, set[str]]:
    """What files of the path import of the package, each with the names of those that do."""
    found: dict[Path, set[str]] = {}
    for name, module in modules().items():
        if module.path.resolve() in LISTED:
            for target in imports()[name]:
                if target in modules():
                    found.setdefault(modules()[target].path.resolve(), set()).add(name)
    return found


def test_the_core_path_is_short() -> None:
    total = sum(lines(path) for _, files in parts() for path in files)
    assert 2_000 < total <= LIMIT, f"the core path has {total} lines"


@pytest.mark.parametrize(("claim", "files"), parts())
def test_counts_are_true(claim: int, files: list[Path]) -> None:
    assert files
    assert sum(map(lines, files)) == pytest.approx(claim, rel=0.2, abs=20)


def test_the_core_path_is_complete() -> None:
    beside = {path: by for path, by in imported().items() if path not in LISTED | SKIPPED}
    named = [f"{path.relative_to(PACKAGE)} (imported by {', '.join(sorted(by))})" for path, by in beside.items()]
    assert not named, "neither on the path nor named as what may be skipped: " + "; ".join(sorted(named))


def test_only_what_is_imported_is_named_as_skipped() -> None:
    assert SKIPPED and not SKIPPED & LISTED
    assert not [str(path.relative_to(PACKAGE)) for path in SKIPPED - imported().keys()]


def test_other_files_exist() -> None:
    named = re.findall(r"`(\w+/[\w/]+\.py)`", GUIDE)
    assert named
    assert not [name for name in named if not (PACKAGE / name).exists()]

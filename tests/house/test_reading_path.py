"""The core path that docs/READING.md names exists, is as long as it says, and is short enough for an afternoon."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house.source import ROOT

LIMIT = 4_000
PART = re.compile(r"^## \d+\. [^(\n]+\((\d+) lines\)\n(.*?)(?=^## )", re.S | re.M)
GUIDE = (ROOT / "docs" / "READING.md").read_text(encoding="utf-8")


def lines(path: Path) -> int:
    """Lines that are not blank."""
    return sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def parts() -> list[tuple[int, list[Path]]]:
    """Per section: the lines it claims, and its files."""
    return [
        (int(claim), [ROOT / "docs" / link for link in re.findall(r"\]\((\.\./src/[^)]+)\)", body)])
        for claim, body in PART.findall(GUIDE)
    ]


def test_the_core_path_is_short() -> None:
    total = sum(lines(path) for _, files in parts() for path in files)
    assert 2_000 < total <= LIMIT, f"the core path has {total} lines"


@pytest.mark.parametrize(("claim", "files"), parts())
def test_counts_are_true(claim: int, files: list[Path]) -> None:
    assert files
    assert sum(map(lines, files)) == pytest.approx(claim, rel=0.2, abs=20)


def test_other_files_exist() -> None:
    named = re.findall(r"`(\w+/[\w/]+\.py)`", GUIDE)
    assert named
    assert not [name for name in named if not (ROOT / "src" / "umbel" / name).exists()]

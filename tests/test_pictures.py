"""What README says of its pictures is what stands in them, and they load nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURES = sorted((ROOT / "docs").glob("*.svg"))


def texts(name: str, tag: str) -> list[str]:
    """The texts of a picture's elements of one kind."""
    root = ElementTree.parse(ROOT / "docs" / name).getroot()
    return ["".join(found.itertext()).replace("\N{NO-BREAK SPACE}", " ") for found in root.findall(f".//{{*}}{tag}")]


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_picture_stands_alone(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    assert not re.search(r"url\((?!#)|<script|<image|@import|@font-face|href=", text)


@pytest.mark.parametrize("name", [path.name for path in PICTURES if path.stem != "killed"])  # a terminal is dark
def test_a_picture_has_two_sets_of_colours(name: str) -> None:
    assert "prefers-color-scheme" in texts(name, "style")[0]


def test_the_share_that_is_saved_is_that_of_the_plan() -> None:
    said = re.search(r"(\d+) % of the prompt tokens are not\s+computed at all", README)
    titles = [title.replace(",", "") for title in texts("plan.svg", "title")]
    computed, saved = (
        sum(int(re.findall(rf"(\d+) {word}", title)[0]) for title in titles) for word in ("tokens?", "saved")
    )
    assert said and int(said[1]) == round(100 * saved / (computed + saved))


def test_the_job_was_killed_where_it_is_said_and_gave_the_same_bytes() -> None:
    said = re.search(r"killed at (\d+) of (\d+) rows", README)
    screen = "".join(texts("killed.svg", "text"))
    assert said and f"{said[1]}/{said[2]} rows" in screen
    assert f"Killed with -9 at {100 * int(said[1]) // int(said[2])} %" in README
    assert screen.endswith("echo the same bytes\nthe same bytes\n") and f"{said[2]} answered, 0 failed" in screen

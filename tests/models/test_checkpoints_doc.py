"""The page on checkpoints names what is read, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from umbel.models.coded_config import FORMATS
from umbel.models.sources.gguf_architectures import ARCHITECTURES
from umbel.models.sources.gguf_config import READ
from umbel.models.sources.gguf_splits import SPLITS

PAGE = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")


def names(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def test_types_of_weights() -> None:
    rows = re.findall(r"^\| GGUF.*?\| (.*?) \|", PAGE, re.M)
    assert len(rows) == 2 and set().union(*map(names, rows)) == set(READ)


def test_formats_of_compressed_tensors() -> None:
    (listed,) = re.findall(r"^\| `compressed-tensors` \| (.*?) \|", PAGE, re.M)
    assert names(listed) == set(FORMATS)


def test_architectures() -> None:
    (listed,) = re.findall(r"\*\*Architectures\*\* \(`general.architecture`\): (.*?)\. A", PAGE, re.S)
    assert names(listed) == {name.removesuffix(" with experts") for name in ARCHITECTURES}


def test_ways_to_cut_texts() -> None:
    (listed,) = re.findall(r"as one of (.*?) says", PAGE, re.S)
    assert names(listed) == set(SPLITS)

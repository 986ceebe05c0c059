"""docs/scores.md prints what really happens, and the examples that it names do what they say."""

from __future__ import annotations

import doctest
import subprocess
import sys

import pytest

from tests.house.source import ROOT


def test_the_page_prints_what_happens() -> None:
    page = ROOT / "docs" / "scores.md"
    result = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 6 and not result.failed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "wanted"),
    [("label.py", "by scores"), ("shared_prompt_training.py", "largest difference")],
)
def test_the_example_runs(example: str, wanted: str) -> None:
    command = [sys.executable, str(ROOT / "examples" / example)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert wanted in done.stdout

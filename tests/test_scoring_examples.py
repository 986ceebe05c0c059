"""The scripts of examples/ that score do what docs/scores.md says of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.house.source import ROOT
from tests.parameters import few_of


@pytest.mark.parametrize(
    ("example", "wanted"),
    few_of([], [("label.py", "by scores"), ("shared_prompt_training.py", "largest difference")]),
)
def test_the_example_runs(example: str, wanted: str) -> None:
    command = [sys.executable, str(ROOT / "examples" / example)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert wanted in done.stdout

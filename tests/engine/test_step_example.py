"""docs/step.md, which walks through the steps of three rows, prints what really happens."""

from __future__ import annotations

import doctest

from tests.house.source import ROOT


def test_the_page_prints_what_happens() -> None:
    page = ROOT / "docs" / "step.md"
    result = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 10 and not result.failed

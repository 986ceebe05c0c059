"""Parameters of a test of which a plain `pytest` takes some, CI more, and `pytest -m nightly` the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

ONE_IN = 6  # of many alike, CI takes so many


def some_of(short: Sequence[Any], slow: Sequence[Any]) -> list[Any]:
    """`short` and, marked as slow, the others."""
    return [*short, *_marked(slow, pytest.mark.slow)]


def few_of(short: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    """`short`, every sixth of the others as slow, and the rest for the night."""
    left = [one for i, one in enumerate(others) if i % ONE_IN]
    return [*short, *_marked(others[::ONE_IN], pytest.mark.slow), *_marked(left, pytest.mark.nightly)]


def by_night(short: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    """`short` and, for the night, the others."""
    return [*short, *_marked(others, pytest.mark.nightly)]


def _marked(parameters: Sequence[Any], mark: pytest.MarkDecorator) -> list[Any]:
    return [pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=mark) for one in parameters]

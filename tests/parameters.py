"""Parameters of a test of which a plain `pytest` takes some and CI takes all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def some_of(short: Sequence[Any], slow: Sequence[Any]) -> list[Any]:
    """`short` and, marked as slow, the others."""
    return [
        *short,
        *(pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=pytest.mark.slow) for one in slow),
    ]

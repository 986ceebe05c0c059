"""Seconds with their interval, and how near to a machine's ceilings steps come."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seconds:
    """A time with its interval."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True, slots=True)
class Efficiency:
    """The share of the ceilings that steps reach, and how many times the smallest step's overhead they pay."""

    arithmetic: float
    memory: float
    overhead: float


CEILING = Efficiency(arithmetic=1.0, memory=1.0, overhead=0.0)
ORDINARY = Efficiency(arithmetic=0.6, memory=0.6, overhead=1.0)
POOR = Efficiency(arithmetic=0.25, memory=0.3, overhead=3.0)

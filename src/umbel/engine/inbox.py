"""What a session was asked since its last step: rows that came, with how they stand among others, and rows to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from umbel.errors import UsageError
from umbel.ir.workload import Workload, join
from umbel.plan.session import SessionPlanner
from umbel.sched.lot import Defaults, Lot, Standing

MOST_URGENT, LEAST_URGENT = -(2**31), 2**31 - 1


@dataclass(frozen=True, slots=True)
class Arrival:
    """Rows that came together, keyed by ticket: whether they stream, and their priority."""

    workload: Workload
    streams: bool
    priority: int


@dataclass(slots=True)
class Inbox:
    """Rows that have `arrived`, and tickets whose rows are `leaving`."""

    arrived: list[Arrival] = field(default_factory=list)
    leaving: list[int] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        """Whether there is anything to take in."""
        return bool(self.arrived or self.leaving)

    def empty(self) -> tuple[list[Arrival], list[int]]:
        """All that came, which is taken out."""
        arrived, leaving = self.arrived, self.leaving
        self.arrived, self.leaving = [], []
        return arrived, leaving


def lot_of(arrived: Sequence[Arrival], planner: SessionPlanner, defaults: Defaults) -> Lot:
    """Rows that start together, planned together."""
    load, sizes = join([one.workload for one in arrived]), [len(one.workload) for one in arrived]
    streams, priority = np.repeat([[one.streams, one.priority] for one in arrived], sizes, axis=0).T
    return replace(defaults.lot(load, planner.lot(load), streams > 0), standing=Standing(priority))


def checked_priority(value: int) -> int:
    """A priority as it was given. Raises UsageError for what is no whole number, or one of more than 32 bits."""
    if isinstance(value, bool) or not isinstance(value, int) or not MOST_URGENT <= value <= LEAST_URGENT:
        raise UsageError(
            f"priority={value!r}: must be a whole number from {MOST_URGENT} (first) to {LEAST_URGENT} (last)"
        )
    return value

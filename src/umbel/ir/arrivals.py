"""Workloads that come one after the other, as a large input is read."""

from __future__ import annotations

from typing import Protocol

from umbel.ir.plan import Plan
from umbel.ir.workload import Workload


class Arrivals(Protocol):
    """What an engine takes its workloads from. `several`: more than one may come."""

    @property
    def several(self) -> bool: ...

    def take(self, *, wait: bool) -> tuple[Workload, Plan] | None:
        """The next workload, with its plan. None where no more come or, unless `wait`, where none is ready yet."""

"""The seam between the loop and a device: a Step goes down, a StepResult comes up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from umbel.ir.step import Step, StepResult


class Runner(Protocol):
    """Computes steps. `run` blocks until the step is done; `close` gives the device's memory back."""

    def run(self, step: Step) -> StepResult: ...

    def close(self) -> None: ...


@runtime_checkable
class AheadRunner(Runner, Protocol):
    """A runner whose device computes while the caller goes on. A token below 0 in a step, -1 - i, stands for the one
    that sample i of the step before draws."""

    def start(self, step: Step) -> Callable[[], StepResult]:
        """Begin a step; what is returned waits for its result, and is called before the step after the next begins."""
        ...

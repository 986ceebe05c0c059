"""The seam between the loop and a device: a Step goes down, a StepResult comes up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from umbel.ir.step import Step, StepResult

Wait = Callable[[], StepResult]


class Runner(Protocol):
    """Computes steps. `ahead` is how many steps may be begun while one is under way: 0, or 1 where the device computes
    while the caller goes on. There a token below 0 in a step, -1 - i, stands for the one that draw i of the step before
    gives.

    One that is given to an `LLM` may say by `n_pages` and `page_size` how much KV it holds; else the plan decides.
    """

    @property
    def ahead(self) -> int: ...

    def start(self, step: Step) -> Wait:
        """Begin a step; what is returned waits for its result. At most `ahead` others wait to be asked for theirs."""
        ...

    def close(self) -> None:
        """Give the device's memory back."""
        ...


def done(result: StepResult) -> Wait:
    """The wait for a step that has been computed, as runners give it that do not work ahead."""
    return lambda: result


def run_step(runner: Runner, step: Step) -> StepResult:
    """Compute a step and wait for its result."""
    return runner.start(step)()

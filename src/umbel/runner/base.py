"""The seam between the loop and a device: a Step goes down, a StepResult comes up."""

from __future__ import annotations

from typing import Protocol

from umbel.ir.step import Step, StepResult


class Runner(Protocol):
    """Computes steps. `run` blocks until the step is done; `close` gives the device's memory back."""

    def run(self, step: Step) -> StepResult: ...

    def close(self) -> None: ...

"""The seam of steps that are recorded once and then run by a single call: CUDA graphs, or a processor's tapes."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from umbel.ir.step import Step
from umbel.runner.sampling import Draws, draw_samples


class RecordedSteps(Protocol):
    """Steps that were recorded (runner/graphs.py, runner/tapes.py)."""

    def logits(self, step: Step, before: Tensor | None) -> tuple[Tensor, int] | None:
        """Logits of every row and the KV tokens that each layer read, or None for a step that was not recorded.
        `before` are the tokens that the step before drew."""
        ...


def draw_recorded(recorded: RecordedSteps, step: Step, before: Tensor | None) -> tuple[Draws, int] | None:
    """The draws of a recorded step and the KV tokens that each layer read; None for a step that is to run as it is."""
    if step.scores is not None or step.sums is not None or step.group is not None or step.sampling.pooled is not None:
        return None
    known = recorded.logits(step, before)
    return None if known is None else (draw_samples(known[0], step.sampling.at, step.sampling), known[1])

"""Runs steps on all ranks of a process group at once: the first tells the others what it is about to compute."""

from __future__ import annotations

from umbel.ir.step import Step, StepResult
from umbel.runner.torch_runner import TorchRunner
from umbel.runner.wire import Word, encode_step, tell


class ParallelRunner:
    """The first rank's: its own runner, whose sums over ranks wait for the others."""

    def __init__(self, runner: TorchRunner):
        self.runner = runner

    def run(self, step: Step) -> StepResult:
        """See Runner."""
        tell(Word.STEP, encode_step(step))
        return self.runner.run(step)

    def close(self) -> None:
        """See Runner."""
        self.runner.close()

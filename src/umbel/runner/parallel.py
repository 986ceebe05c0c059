"""Runs steps on all ranks of a process group at once: the first tells the others what it is about to compute."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from umbel.ir.step import Step
from umbel.runner.base import Wait
from umbel.runner.torch_runner import TorchRunner
from umbel.runner.wire import Word, encode_step, tell


class ParallelRunner:
    """The first rank's: its own runner, whose sums over ranks wait for the others."""

    ahead = 0

    def __init__(self, runner: TorchRunner, named: Callable[[], AbstractContextManager[None]] = nullcontext):
        """What fails is raised within `named`, which knows whether another rank has ended."""
        self.runner = runner
        self._named = named

    def start(self, step: Step) -> Wait:
        """Send the step to the other ranks, and compute this rank's part of it."""
        with self._named():
            tell(Word.STEP, encode_step(step))
            return self.runner.start(step)

    def close(self) -> None:
        """Drop this rank's model and KV store."""
        self.runner.close()

"""The engine's own loop on runners that compute nothing: what a plan expects is held against what happens there."""

from __future__ import annotations

import numpy as np

from umbel.engine.assemble import make_scheduler
from umbel.engine.loop import Loop
from umbel.ir.plan import Plan
from umbel.ir.step import Step, StepResult
from umbel.ir.workload import Workload
from umbel.runner.base import Runner, Wait, done
from umbel.sched.lot import Lot

END = 1  # the token that ends an answer, where a runner draws it


class ZeroRunner:
    """Every sample draws token 0."""

    ahead = 0

    def start(self, step: Step) -> Wait:
        n = len(step.sampling)
        return done(StepResult(np.zeros(n, np.int64), np.zeros(n, bool)))

    def close(self) -> None:
        pass


class FadingRunner(ZeroRunner):
    """Samples end where their row's number and their position say; a step takes a millisecond, and a little a token."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def start(self, step: Step) -> Wait:
        self.seconds += 1e-3 + 2e-6 * len(step.tokens)
        drawn = step.sampling
        ends = (drawn.keys * 31 + drawn.samples * 17 + drawn.positions * 7) % 19 == 0
        return done(StepResult(np.where(ends, END, 0), np.zeros(len(drawn), bool)))


def loop_of(workload: Workload, plan: Plan, runner: Runner, ends: tuple[int, ...] = ()) -> Loop:
    """The production loop for a plan; samples end at their planned lengths, or where `ends` are drawn."""
    loop = Loop(make_scheduler(plan), runner)
    ends_of = [ends] * len(workload)
    loop.add_lot(Lot(workload, plan.forest, ends_of, plan.lengths, plan.order, same_as=plan.same_as))
    return loop

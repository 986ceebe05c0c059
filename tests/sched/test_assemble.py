"""The short way from one decoding step to the next: taken whenever the same samples go on, at a cost that does not grow
with them. That it gives the same steps is checked by `drive` in every test of the scheduler."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from itertools import pairwise
from types import FrameType
from typing import Any

import numpy as np
import pytest

from tests.sched.drive import Job, Zeros, apply, drive, scheduler_of
from umbel.cost.meter import Meter
from umbel.engine.watch.base import Surroundings
from umbel.engine.watch.watchers import Watchers, known_watchers
from umbel.ir.sampled import SampledTokens
from umbel.ir.step import Step, StepResult
from umbel.runner.base import run_step
from umbel.sched.scheduler import Scheduler

PAGE = 4


def job_of(rows: int, outs: list[int], n: int = 1) -> Job:
    """Rows in pairs that share a beginning."""
    return Job([[row // 2 % 50, row // 100, 3, 4, row % 2, 7] for row in range(rows)], [n] * rows, outs)


def short_ways(job: Job, chunk: int = 1000, pages: int | None = None) -> tuple[int, int]:
    """Of all steps, how many took over the nodes of the step before; and how many steps there were."""
    steps: list[Step] = []
    drive(job, pages or job.demand(PAGE), PAGE, chunk, seen=lambda scheduler, step, slots: steps.append(step))
    return sum(now.parent is last.parent for last, now in pairwise(steps)), len(steps)


def test_steps_are_taken_over_while_the_same_samples_decode() -> None:
    # One step for all prompts and first tokens, one that decodes for the first time, and then as many as are left.
    assert short_ways(job_of(8, [30] * 8)) == (28, 30)


def test_they_are_made_anew_when_one_has_ended() -> None:
    assert short_ways(job_of(4, [10, 10, 20, 20])) == (8 + 9, 20)


def test_samples_of_one_row_are_taken_over_too() -> None:
    assert short_ways(job_of(2, [12, 12], n=3)) == (10, 12)


def test_a_tight_pool_and_a_small_chunk_make_them_anew_where_they_must() -> None:
    """Preemption, prompts in pieces and tails computed again, between steps that only decode."""
    job = job_of(12, [25] * 12)
    for pages in (9, 12, 20, 40):
        for chunk in (3, 8, 1000):
            taken, steps = short_ways(job, chunk, pages)
            assert taken < steps


class Calls:
    """How many functions are called, in Python and in C, while an act runs."""

    def __init__(self) -> None:
        self.count = 0

    def of(self, act: Callable[[], Any]) -> Any:
        """Run an act and count."""

        def note(frame: FrameType, event: str, argument: object) -> None:
            self.count += event in ("call", "c_call")

        gc.disable()  # or what other tests have left behind is finalised here, and counted
        sys.setprofile(note)
        try:
            return act()
        finally:
            sys.setprofile(None)
            gc.enable()


def land(scheduler: Scheduler, watchers: Watchers, result: StepResult) -> np.ndarray:
    """Take in the result of the step last returned, as the loop does; the slots that drew in it."""
    drawing = scheduler.advance()
    assert watchers.masks(drawing) is None
    sampled = scheduler.in_flight.present(SampledTokens(drawing, result))
    scheduler.settle(sampled, watchers.judge(sampled))
    return drawing.slots


def calls_of_a_step(rows: int, *, ended: bool) -> int:
    """Calls that the loop makes for a step in which `rows` rows decode, right after one in which one `ended`."""
    outs = [40] * rows
    if ended:
        outs[-1] = 14
    job = job_of(rows, outs)
    scheduler: Scheduler = scheduler_of(job, job.demand(PAGE), PAGE, 10_000)
    watchers = Watchers([make(Surroundings(scheduler.requests)) for make in known_watchers()])
    watchers.extend(job.workload.params)
    meter, runner = Meter(), Zeros()
    for made in range(1, 15):  # the tails of the next step fit their pages, so that none are looked for
        step = scheduler.next()
        assert step is not None
        slots = land(scheduler, watchers, run_step(runner, step))
        assert (scheduler.seqs.n_out[slots] >= min(made, 14)).all()
    calls = Calls()
    step = calls.of(scheduler.next)
    assert len(step.sampling) == rows - ended
    result = run_step(runner, step)
    calls.of(lambda: land(scheduler, watchers, result))
    calls.of(lambda: meter.add(step, 1, 0.1))
    return calls.count


@pytest.mark.parametrize("ended", [False, True])
def test_calls_do_not_grow_with_the_rows(ended: bool) -> None:
    few, many = calls_of_a_step(8, ended=ended), calls_of_a_step(400, ended=ended)
    assert few == many


def test_the_rows_of_the_last_step_stay_as_they_were() -> None:
    """A step that was handed out is not changed by what is made from it."""
    job = job_of(6, [9] * 6)
    scheduler = scheduler_of(job, job.demand(PAGE), PAGE, 1000)
    kept: list[tuple[Step, list[list[int]]]] = []
    while (step := scheduler.next()) is not None:
        arrays = [step.tokens, step.positions, step.end, step.pages, step.sampling.positions]
        kept.append((step, [np.array(a).tolist() for a in arrays]))
        slots = apply(scheduler, run_step(Zeros(), step))
        for slot in slots[scheduler.seqs.n_out[slots] == 9].tolist():
            scheduler.finish(slot)
    for step, was in kept:
        assert [a.tolist() for a in (step.tokens, step.positions, step.end, step.pages, step.sampling.positions)] == was

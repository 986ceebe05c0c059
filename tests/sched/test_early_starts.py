"""Samples that start before their room is certain: when the steps that this spares cost as much as it may."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.plan.workloads import MACHINE, SPEC, groups
from tests.sched.drive import Job, Zeros, apply
from umbel.cache.pages import PagePool
from umbel.config import EngineConfig
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.runner.base import run_step
from umbel.sched.lot import Lot
from umbel.sched.policies.early_starts import EarlyStarts
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler
from umbel.sim.case import SimCase
from umbel.sim.simulate import simulate

PAGE = 4


def begun(cost: float, pages: int, rows: int = 12, limit: int = 60, *, ends: bool = True) -> Scheduler:
    """After one step over prompts of five tokens; answers are not known, or `ends` nothing but their limits."""
    job = Job([[1, row, 2, 3, 4] for row in range(rows)], [1] * rows, [limit] * rows)
    s = Scheduler(PagePool(pages, PAGE), 512, Policy(step_cost=cost))
    s.add(Lot(job.workload, job.forest, [(2,) if ends else () for _ in range(rows)], np.full(rows, limit)))
    apply(s, run_step(Zeros(), s.next()))  # type: ignore[arg-type]
    return s


def test_more_start_where_steps_cost_more() -> None:
    """A pool for five answers at their limits: those where a step costs nothing, all where it costs much."""
    started = [int(begun(cost, 90).seqs.n_running) for cost in (0, 4, 60, 500)]
    assert started[0] == 5 and started == sorted(started) and started[-1] == 12


def test_what_is_certain_is_not_wagered() -> None:
    assert begun(500, 90, ends=False).seqs.n_running == begun(0, 90, ends=False).seqs.n_running


@pytest.mark.parametrize("cost", [1.0, 7.0, 20.0, 200.0])
@pytest.mark.parametrize("pages", [60, 90, 140])
def test_the_choice_is_that_of_the_definition(cost: float, pages: int) -> None:
    """Steps until the pool is full, by those who then run and by tokens of whole pages, counted out."""
    s = begun(0, pages)
    rank = s.waiting.first()
    assert rank is not None
    s.books.step_cost = cost
    candidate, running, waiting = s.books.candidate(rank), s.seqs.n_running, 12 - s.seqs.n_running
    prompt = sum(-(-s.kv.length.item(n) // PAGE) for n in candidate.path if not s.kv.n_pages[n]) + 1
    steps = (s.pool.free - prompt) * PAGE / (running + 1)
    pays = steps > 0 and cost * steps / min(waiting, running + 1) >= prompt * PAGE + steps
    assert EarlyStarts(s.books).pays(candidate) == pays


def test_one_that_was_preempted_waits_for_certain_room() -> None:
    s = begun(500, 90)
    assert s.books.give_way()
    rank = s.waiting.first()
    assert rank is not None and not EarlyStarts(s.books).pays(s.books.candidate(rank))


@pytest.mark.parametrize("share", [1.0, 1.3])
def test_with_room_for_all_no_job_takes_longer_than_first_come_first_served(share: float) -> None:
    """Answers of unknown length, limits that the pool could not hold, and a pool that holds what they come to."""
    workload = Workload.of(groups(6, 6, 40, 60), SamplingParams(max_tokens=200))
    draw = random.Random(3)
    lengths = np.array([draw.randrange(60, 200) for _ in range(36)], np.int64)
    whole = len(workload.tokens) + int(lengths.sum()) + 36 * 16
    case = SimCase(workload, SPEC, MACHINE, EngineConfig("tiny", kv_tokens=int(share * whole) // 16 * 16), lengths)
    assert simulate(case, "umbel").seconds <= 1.01 * simulate(case, "fcfs-lru").seconds

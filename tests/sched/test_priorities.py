"""Rows of several priorities: who steps and who is paused, by hand-made cases; tokens are those of each row alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.books import check_books
from tests.sched.drive import VOCAB, Job, apply, check_step, expected
from umbel.cache.pages import PagePool
from umbel.ir.step import Step
from umbel.runner.base import run_step
from umbel.runner.fake import FakeRunner
from umbel.sched.lot import Lot, Standing
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler

URGENT, BATCH = 0, 10


class Case:
    """A scheduler that rows of a priority are added to, step by step; every answer is held against the row alone."""

    def __init__(self, n_pages: int, chunk: int, page_size: int = 4, **rules: object):
        policy = Policy(queue="priority", **rules)  # type: ignore[arg-type]
        self.scheduler = Scheduler(PagePool(n_pages, page_size), chunk, policy)
        self.scheduler.reuse()
        self.runner, self.chunk = FakeRunner(n_pages, page_size, VOCAB), chunk
        self.jobs: dict[int, tuple[Job, int]] = {}
        self.done: dict[int, int] = {}  # row -> the step in which it ended

    def add(self, prompts: list[list[int]], out: int, priority: int) -> list[int]:
        job, first = Job(prompts, [1] * len(prompts), [out] * len(prompts)), len(self.scheduler.requests)
        load = replace(job.workload, keys=first + np.arange(len(prompts)))
        standing = Standing.alike(len(prompts), priority)
        limits = np.full(len(prompts), out)
        self.scheduler.add(Lot(load, job.forest, [()] * len(prompts), limits, standing=standing))
        rows = list(range(first, first + len(prompts)))
        self.jobs |= {row: (job, row - first) for row in rows}
        return rows

    def step(self) -> dict[int, int]:
        """Make a step; the rows that it computes tokens of their own for, with how many these are."""
        step = self.scheduler.next()
        assert step is not None and not self.scheduler.failed
        check_step(step, self.scheduler.pool.n_pages, self.chunk)
        fed = self._fed(step)
        slots, seqs = apply(self.scheduler, run_step(self.runner, step)), self.scheduler.seqs
        for slot in slots.tolist():
            row, n_out = int(seqs.row[slot]), int(seqs.n_out[slot])
            job, place = self.jobs[row]
            assert seqs.out[slot, :n_out].tolist() == expected(job, place, 0)[:n_out]
            if n_out == job.outs[place]:
                self.done[row] = self.scheduler.steps
                self.scheduler.finish(slot)
        check_books(self.scheduler)
        return fed

    def end(self) -> None:
        while len(self.done) < len(self.jobs):
            self.step()

    def running(self) -> set[int]:
        seqs = self.scheduler.seqs
        return set(seqs.row[seqs.runners()].tolist())

    def _fed(self, step: Step) -> dict[int, int]:
        agenda, seqs, kv = self.scheduler._agenda, self.scheduler.seqs, self.scheduler.kv
        fed = dict(zip(seqs.row[agenda.slots].tolist(), agenda.tip_counts.tolist(), strict=True))
        for row in range(len(self.scheduler.requests)):
            if row not in self.done and int(kv.leaf[row]) in agenda.counts:
                fed[row] = fed.get(row, 0) + agenda.counts[int(kv.leaf[row])]
        return fed


def prompts(count: int, length: int, first: int = 0) -> list[list[int]]:
    """Prompts that share nothing."""
    return [[first + i, *[1] * (length - 1)] for i in range(count)]


def test_urgent_rows_take_what_they_need_of_a_step_and_others_what_that_leaves() -> None:
    case = Case(200, chunk=8)
    batch = case.add(prompts(8, 2), 30, BATCH)
    while set(case.step()) != set(batch) or len(case.running()) < 8:
        pass
    (urgent,) = case.add(prompts(1, 20, 20), 3, URGENT)
    assert case.step() == {urgent: 8} and case.step() == {urgent: 8}, "the step after it came is its own"
    last = case.step()
    assert last.pop(urgent) == 4 and last == dict.fromkeys(batch[:4], 1)
    then = case.step()
    assert then.pop(urgent) == 1 and len(then) == 7, "it decodes, and all but one of the others do"
    assert case.running() == {urgent, *batch} and case.scheduler.preemptions == 0, "no one gave pages up"
    case.end()


@pytest.mark.parametrize("admission", ["past-future", "conservative", "aggressive", "headroom"])
def test_less_urgent_rows_give_their_pages_up_within_a_step(admission: str) -> None:
    case = Case(24, chunk=80, admission=admission)
    case.add(prompts(6, 8), 20, BATCH)
    for _ in range(12):
        case.step()
    before = case.scheduler.preemptions
    urgent = case.add(prompts(3, 24, 20), 4, URGENT)
    fed = case.step()
    assert {row: fed.get(row) for row in urgent} == dict.fromkeys(urgent, 24)
    assert case.scheduler.preemptions > before
    case.end()
    assert max(case.done[row] for row in urgent) < min(ended for row, ended in case.done.items() if row not in urgent)


def test_one_that_runs_alone_gives_way_to_a_more_urgent_one_only() -> None:
    case = Case(8, chunk=64)
    (batch,) = case.add(prompts(1, 8), 12, BATCH)
    case.step()
    (equal,) = case.add(prompts(1, 20, 5), 4, BATCH)
    case.step()
    assert case.running() == {batch}
    (urgent,) = case.add(prompts(1, 24, 9), 4, URGENT)
    assert case.step() == {urgent: 24} and case.running() == {urgent}
    case.end()
    assert case.done[urgent] < case.done[batch] < case.done[equal]


def test_places_are_given_up_too() -> None:
    case = Case(100, chunk=64, max_running=2)
    batch = case.add(prompts(4, 4), 10, BATCH)
    case.step()
    urgent = case.add(prompts(2, 4, 9), 3, URGENT)
    case.step()
    assert case.running() == set(urgent)
    case.end()
    assert max(case.done[row] for row in urgent) < min(case.done[row] for row in batch)


def test_the_last_of_the_least_urgent_steps_back_first() -> None:
    case = Case(13, chunk=64, admission="aggressive")
    late = case.add(prompts(2, 4), 12, 5)
    middle = case.add(prompts(2, 4, 5), 12, 3)
    case.step()
    assert case.running() == {*late, *middle}
    while case.scheduler.preemptions == 0:
        case.step()
    assert case.running() == {late[0], *middle}
    case.end()
    assert max(case.done[row] for row in middle) < max(case.done[row] for row in late)


def test_none_starts_before_a_more_urgent_one_that_waits() -> None:
    case = Case(12, chunk=64, admission="conservative")
    first = case.add(prompts(1, 20), 10, URGENT)
    case.step()
    (large,) = case.add(prompts(1, 24, 5), 8, URGENT)
    (small,) = case.add(prompts(1, 4, 8), 4, BATCH)
    while not case.done:
        case.step()
        assert case.running() <= set(first), "there is room for the small one, which the large one would wait for"
    case.step()
    assert case.running() == {large, small}
    case.end()


def test_equal_priorities_run_as_in_plan_order() -> None:
    """The same steps as the rule that knows no priorities takes."""
    seen = []
    for queue in ("plan", "priority"):
        case = Case(30, chunk=20, admission="aggressive")
        case.scheduler = Scheduler(PagePool(30, 4), 20, Policy(queue=queue, admission="aggressive"))
        case.scheduler.reuse()
        case.add(prompts(10, 9), 14, 7)
        fed = []
        while len(case.done) < 10:
            fed.append(case.step())
        seen.append((fed, case.scheduler.preemptions))
    assert seen[0] == seen[1] and seen[0][1] > 0


@pytest.mark.parametrize("spares", [True, False])
def test_chats_that_are_over_do_not_push_out_what_a_batch_is_still_to_read(spares: bool) -> None:
    """Its rows share a beginning and run one at a time, beneath chats that fill the pool."""
    case = Case(30, chunk=64, max_running=1)
    if not spares:
        case.scheduler.kv.idle.follow(case.scheduler.kv.idle.keep)
    case.add([[7] * 32 + [i] for i in range(6)], 4, BATCH)
    for i in range(3):
        case.step()
        chats = case.add(prompts(5, 24, 20 + 5 * i), 2, URGENT)
        while chats[-1] not in case.done:
            case.step()
    case.end()
    assert (case.scheduler.recomputed_tokens < 32) == spares

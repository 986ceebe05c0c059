"""Rows that are added while others run: every answer is that of the row alone, on each kind of runner."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from tests.books import check_books
from tests.engine.test_ahead import ENDS, PAGE, Ahead, Sick, random_job
from tests.parameters import few_of
from tests.sched.drive import OFTEN, RARELY, VOCAB, Job, Zeros
from umbel.cache.pages import PagePool
from umbel.engine.events import Tokens
from umbel.engine.loop import Loop
from umbel.ir.request import Output
from umbel.ir.workload import Workload
from umbel.plan.passes.prefix import build_forest
from umbel.runner.base import Runner
from umbel.sched.lot import Lot
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler

EACH = pytest.mark.parametrize(
    "policy",
    few_of(OFTEN[::2], (*OFTEN[1::2], *RARELY)),
    ids=lambda p: f"{p.queue}-{p.keep}-{p.admission}-{p.max_running}",
)


def lot_of(job: Job, rows: list[int], *, streamed: bool = False) -> Lot:
    """Some rows of a job; what keys and samples them is theirs in the whole job."""
    params = [job.workload.params[row] for row in rows]
    workload = Workload.of([job.prompts[row] for row in rows], params, rows)
    limits = np.array([job.outs[row] for row in rows])
    flags = np.full(len(rows), streamed)
    return Lot(workload, build_forest(workload), [ENDS] * len(rows), limits, streamed=flags)


def loop_of(runner: Runner, pages: int, chunk: int, policy: Policy | None = None) -> Loop:
    return Loop(Scheduler(PagePool(pages, PAGE), chunk, policy), runner)


def answers_of(outputs: list[Output]) -> dict[int, object]:
    return {output.row: (output.outputs, output.error and output.error.code) for output in outputs}


def run_at_once(job: Job, runner: Runner, pages: int, chunk: int) -> dict[int, object]:
    loop = loop_of(runner, pages, chunk)
    loop.add_lot(lot_of(job, list(range(len(job.prompts)))))
    return answers_of(list(loop.run()))


@EACH
@pytest.mark.parametrize("ahead", [False, True])
def test_rows_that_come_later_get_the_same_answers(policy: Policy, ahead: bool) -> None:
    """In random lots, between random steps, also after everything was done; books are checked after every step."""
    rng = random.Random(repr(policy) + str(ahead))
    for _ in range(4):
        job = random_job(rng)
        pages, chunk = max(rng.choice((job.largest_row(PAGE), job.demand(PAGE))), 2), rng.choice((1, 3, 8, 64))
        wanted = run_at_once(job, Sick(pages, PAGE, VOCAB), pages, chunk)
        runner = Sick(pages, PAGE, VOCAB)
        loop = loop_of(Ahead(runner) if ahead else runner, pages, chunk, policy)
        left, outputs = list(range(len(job.prompts))), list[Output]()
        row_of: list[int] = []  # in the job, of each row of the loop
        rng.shuffle(left)
        while left or loop.busy:
            if left and rng.random() < 0.3:
                rows = [left.pop() for _ in range(rng.randint(1, len(left)))]
                assert loop.add_lot(lot_of(job, rows)) == len(row_of)
                row_of += rows
            outputs += [event for event in loop.step() if isinstance(event, Output)]
            check_books(loop.scheduler)
        assert {row_of[row]: answer for row, answer in answers_of(outputs).items()} == wanted
        assert len(outputs) == len(job.prompts) == loop.stats().rows_done
        assert loop.scheduler.pool.used == 0 or policy.keep == "lru"


@pytest.mark.parametrize("ahead", [False, True])
def test_a_cancelled_row_says_nothing_more_and_the_others_are_as_before(ahead: bool) -> None:
    rng, seen = random.Random(7), dict.fromkeys(("waiting", "running", "done"), 0)
    for _ in range(25):
        job = random_job(rng)
        pages, chunk = job.demand(PAGE), rng.choice((3, 8, 64))
        wanted = run_at_once(job, Sick(pages, PAGE, VOCAB), pages, chunk)
        runner = Sick(pages, PAGE, VOCAB)
        loop = loop_of(Ahead(runner) if ahead else runner, pages, chunk)
        loop.add_lot(lot_of(job, list(range(len(job.prompts)))))
        outputs: list[Output] = []
        for _ in range(rng.randrange(12)):
            outputs += [event for event in loop.step() if isinstance(event, Output)]
        row, done = rng.randrange(len(job.prompts)), {output.row for output in outputs}
        started = {int(loop.scheduler.seqs.row[slot]) for slot in loop.scheduler.seqs.slot_of.values()}
        seen["done" if row in done else "running" if row in started else "waiting"] += 1
        loop.cancel(row)
        check_books(loop.scheduler)
        later = list(loop.run())
        assert row not in {output.row for output in later}
        found = answers_of(outputs + later)
        assert found == {r: answer for r, answer in wanted.items() if r != row or row in done}
        assert loop.scheduler.pool.used == 0 and not loop.scheduler.seqs.slot_of
    assert min(seen.values()) > 0


def test_twins_of_a_cancelled_row_get_their_answer() -> None:
    """Rows 1 and 2 get the answer of row 0: cancelling any of them takes nothing from the others, and when none of
    them is left, nothing is computed for them any more."""
    job = Job([[1, 2, 3], [1, 2, 3], [1, 2, 3], [4]], [1] * 4, [6, 6, 6, 2])
    twins = np.array([0, 0, 0, 3])
    wanted = run_at_once(job, Sick(99, PAGE, VOCAB), 99, 8)
    for gone in ([0], [1], [0, 1], [1, 2], [2, 0, 1]):
        loop = loop_of(Sick(99, PAGE, VOCAB), 99, 8)
        lot = lot_of(job, [0, 1, 2, 3])
        loop.add_lot(Lot(lot.workload, lot.forest, lot.end_ids, lot.limits, np.array([0, 3]), same_as=twins))
        outputs = [event for event in loop.step() if isinstance(event, Output)]
        for row in gone:
            loop.cancel(row)
        seqs = loop.scheduler.seqs
        assert (0 in seqs.row[seqs.running]) == (len(gone) < 3)
        outputs += loop.run()
        assert answers_of(outputs) == {row: answer for row, answer in wanted.items() if row not in gone}


@pytest.mark.parametrize("ahead", [False, True])
def test_tokens_that_stream_are_those_of_the_answer(ahead: bool) -> None:
    rng = random.Random(3)
    job = random_job(rng)
    runner = Sick(job.demand(PAGE), PAGE, VOCAB)
    loop = loop_of(Ahead(runner) if ahead else runner, job.demand(PAGE), 8)
    rows = list(range(len(job.prompts)))
    loop.add_lot(lot_of(job, rows[::2], streamed=True))
    quiet = loop.add_lot(lot_of(job, rows[1::2]))
    streams: dict[tuple[int, int], tuple[int, ...]] = {}
    outputs = []
    while loop.busy:
        for event in loop.step():
            if isinstance(event, Tokens):
                assert event.row < quiet
                key = event.row, event.sample
                streams[key] = streams.get(key, ()) + event.token_ids
            else:
                outputs.append(event)
    said = {(o.row, c.index): c.token_ids for o in outputs for c in o.outputs if o.row < quiet}
    assert said and said.items() <= streams.items()


def test_one_forward_a_step_whenever_rows_came() -> None:
    """1,000 rows that come at random: the steps are the span of time, not the sum of lengths."""
    rng, length = random.Random(11), 12
    job = Job([[i % 7, i % 11, *[i % 50] * (i % 5)] for i in range(1_000)], [1] * 1_000, [length] * 1_000)
    loop = loop_of(Zeros(), 20_000, 100_000)
    left, steps, last = list(range(1_000)), 0, 0
    while left or loop.busy:
        if left and (rng.random() < 0.7 or not loop.busy):
            loop.add_lot(lot_of(job, [left.pop() for _ in range(min(len(left), rng.randrange(1, 9)))]))
            last = steps
        loop.step()
        steps += 1
    assert loop.stats().steps <= last + length + 1


@pytest.mark.nightly
def test_a_row_is_added_to_many_in_less_than_a_millisecond() -> None:
    """The best of several: other programs only add time."""
    many = 100_000
    loop = loop_of(Zeros(), 200_000, 64)
    big = Job([[i % 50, i // 50 % 50, i // 2_500] for i in range(many)], [1] * many, [2] * many)
    loop.add_lot(lot_of(big, list(range(many))))
    small = lot_of(Job([[1, 2, 3]], [1], [2]), [0])
    taken = []
    for _ in range(20):
        began = time.perf_counter()
        loop.add_lot(small)
        taken.append(time.perf_counter() - began)
    assert min(taken) < 1e-3, taken

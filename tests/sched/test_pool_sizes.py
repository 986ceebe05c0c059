"""The same answers whatever the pool and the chunk, few preemptions, progress always."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from tests.parameters import few_of
from tests.sched.drive import Job, Zeros, drive, expected, scheduler_of
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler
from umbel.sched.sequences import Sequences

PAGE = 4


def groups(seed: int, n_rows: int = 30) -> Job:
    """Rows in a few groups with a shared beginning of two levels, own ends, and answers of mixed length."""
    rng = random.Random(seed)
    heads = [[rng.randrange(40) for _ in range(rng.randrange(20, 60))] for _ in range(4)]
    middles = {g: [[rng.randrange(40) for _ in range(12)] for _ in range(3)] for g in range(4)}
    prompts, ns, outs = [], [], []
    for _ in range(n_rows):
        g = rng.randrange(4)
        prompts.append(heads[g] + rng.choice(middles[g]) + [rng.randrange(40) for _ in range(rng.randrange(1, 30))])
        ns.append(rng.choice((1, 1, 1, 3)))
        outs.append(rng.randrange(1, 48))
    return Job(prompts, ns, outs)


def long_answers(seed: int) -> Job:
    """Short prompts and answers far longer than the room that admission keeps for each."""
    rng = random.Random(seed)
    prompts = [[i, *(rng.randrange(40) for _ in range(rng.randrange(1, 20)))] for i in range(16)]
    return Job(prompts, [1] * 16, [rng.randrange(60, 160) for _ in prompts])


JOBS = {"groups": groups(0), "other groups": groups(1), "long answers": long_answers(2)}


def answers(job: Job) -> dict[tuple[int, int], list[int]]:
    return {key: expected(job, *key) for key in job.samples}


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("percent", few_of([100, 10], [50, 25, 5]))
def test_answers_do_not_depend_on_the_pool(name: str, percent: int) -> None:
    job = JOBS[name]
    pages = max(job.demand(PAGE) * percent // 100, job.largest_row(PAGE))
    run = drive(job, pages, PAGE, chunk=64)
    assert run.tokens == answers(job) and not run.failed
    assert run.idle <= 100
    if percent == 100:
        assert run.scheduler.preemptions == 0 and run.scheduler.recomputed_tokens <= len(job.samples)


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("chunk", few_of([1, 16], [7, 512, 2048]))
def test_answers_do_not_depend_on_the_chunk(name: str, chunk: int) -> None:
    job = JOBS[name]
    run = drive(job, max(job.demand(PAGE) // 4, job.largest_row(PAGE)), PAGE, chunk, check=chunk > 1)
    assert run.tokens == answers(job) and not run.failed


class Counting:
    """A rule of victims that counts how often it picks each sample (by its rank)."""

    def __init__(self, scheduler: Scheduler):
        self.counts: Counter[int] = Counter()
        self._inner, scheduler.books.victim = scheduler.books.victim, self

    def pick(self, seqs: Sequences, slots: np.ndarray) -> int:
        slot = self._inner.pick(seqs, slots)
        self.counts[int(seqs.rank[slot])] += 1
        return slot


# Neither knows how long answers are: one does not ask, the other has limits that are far too high.
RULES = pytest.mark.parametrize(("rule", "loose"), [("headroom", 1), ("past-future", 30)])


@RULES
@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("chunk", few_of([64], [16, 512]))
def test_preemptions_stay_rare_at_a_quarter_of_the_demand(name: str, chunk: int, rule: str, loose: int) -> None:
    job = JOBS[name]
    pages, policy = max(job.demand(PAGE) // 4, job.largest_row(PAGE)), Policy(admission=rule)
    scheduler = scheduler_of(job, pages, PAGE, chunk, policy=policy, loose=loose)
    counting = Counting(scheduler)
    run = drive(job, scheduler.pool.n_pages, PAGE, chunk, scheduler=scheduler, check=False)
    assert run.tokens == answers(job)
    assert counting.counts.total() == scheduler.preemptions
    assert max(counting.counts.values(), default=0) <= 3, counting.counts.most_common(5)


@pytest.mark.parametrize(
    ("rule", "loose", "percent"), few_of([("headroom", 1, 10)], [("past-future", 30, 25), ("headroom", 1, 25)])
)
@pytest.mark.parametrize(("rows", "shortest", "longest"), few_of([(40, 500, 2000)], [(30, 1000, 1000)]))
def test_preemptions_stay_rare_with_answers_of_a_thousand_tokens(
    rows: int, shortest: int, longest: int, percent: int, rule: str, loose: int
) -> None:
    """Answers that outgrow the headroom many times over; only counts matter, so every token is 0."""
    rng = random.Random(rows)
    prompts = [[i, *(rng.randrange(40) for _ in range(rng.randrange(1, 40)))] for i in range(rows)]
    job = Job(prompts, [1] * rows, [rng.randint(shortest, longest) for _ in prompts])
    pages = max(job.demand(16) * percent // 100, job.largest_row(16))
    scheduler = scheduler_of(job, pages, 16, 512, policy=Policy(admission=rule), loose=loose)
    counting = Counting(scheduler)
    run = drive(job, pages, 16, 512, scheduler=scheduler, runner=Zeros(), check=False)
    assert set(run.tokens) == job.samples
    assert max(counting.counts.values(), default=0) <= 3, counting.counts.most_common(5)
    assert scheduler.recomputed_tokens < 0.7 * sum(job.outs)


def test_a_row_that_cannot_fit_is_reported_and_the_others_are_answered() -> None:
    job = Job([[1, 2, 3], [1, 2, 4] * 30, [5]], [1, 2, 1], [4, 4, 60])
    run = drive(job, 10, PAGE, chunk=16)
    assert run.failed == {1, 2}  # 90 prompt tokens; 60 generated ones
    assert run.tokens == {(0, 0): expected(job, 0, 0)}

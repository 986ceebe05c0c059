"""Every prompt token is computed once: counters against the forest's distinct tokens and the rows that really ran."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from tests.books import holders
from tests.sched.drive import Job, drive, expected, scheduler_of
from umbel.ir.step import Step
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler

PAGE = 16


def three_levels() -> Job:
    """200 rows below 4 heads and 5 middles each; some prompts are equal, some begin others, some have n > 1."""
    rng = random.Random(5)
    heads = [[h, *(rng.randrange(40) for _ in range(rng.randrange(60, 140)))] for h in range(4)]
    middles = [[m, *(rng.randrange(40) for _ in range(rng.randrange(1, 50)))] for m in range(5)]
    prompts = []
    for row in range(180):
        middle = heads[row % 4] + middles[row // 4 % 5]
        prompts.append(middle[: rng.choice((3, 16, 40))] if row % 30 == 29 else [*middle, row % 40, 7, row // 40])
    prompts += [list(prompts[rng.randrange(180)]) for _ in range(20)]
    ns = [rng.choice((1, 1, 1, 2, 4)) for _ in prompts]
    return Job(prompts, ns, [rng.randrange(1, 6) for _ in prompts])


def distinct_tokens(job: Job) -> int:
    """Distinct prefixes over all prompts: what a forest that shares everything holds."""
    return len({tuple(prompt[: i + 1]) for prompt in job.prompts for i in range(len(prompt))})


@pytest.mark.parametrize("chunk", [1, 16, 64, 512, 2048])
def test_prompt_tokens_computed_are_the_distinct_ones(chunk: int) -> None:
    job = three_levels()
    assert len(job.prompts) == 200
    run = drive(job, job.demand(PAGE), PAGE, chunk)
    assert run.scheduler.computed_tokens == distinct_tokens(job) == job.forest.n_tokens
    assert run.scheduler.recomputed_tokens == 0 and run.scheduler.preemptions == 0
    # A sample's last token is never fed; no row of any step was run for nothing.
    decoded = sum(n * (out - 1) for n, out in zip(job.ns, job.outs, strict=True))
    assert run.rows_run == run.fresh_run == distinct_tokens(job) + decoded


def test_every_prefix_is_computed_once() -> None:
    """By content: follow what the steps write, slot by slot, and count how often each prompt prefix is written."""
    job = three_levels()
    prefix_in: dict[int, int] = {}  # slot -> hash of the whole sequence up to it
    written: Counter[int] = Counter()

    def note(scheduler: Scheduler, step: Step, slots: np.ndarray) -> None:
        for node in range(len(step.parent)):
            parent = int(step.parent[node])
            for row in range(int(step.row_begin[node]), int(step.row_end[node])):
                at = int(step.positions[row])
                before = 0
                if at:
                    before = prefix_in[slot(step, node if at > step.start[node] else parent, at - 1)]
                prefix = hash((before, int(step.tokens[row])))
                prefix_in[slot(step, node, at)] = prefix
                written[prefix] += 1

    run = drive(job, job.demand(PAGE), PAGE, chunk=100, seen=note)
    assert all(run.tokens[key] == expected(job, *key) for key in job.samples)
    wanted = set()
    for prompt in job.prompts:
        prefix = 0
        for token in prompt:
            prefix = hash((prefix, token))
            wanted.add(prefix)
    assert len(wanted) == distinct_tokens(job)
    assert all(written[prefix] == 1 for prefix in wanted)


def slot(step: Step, node: int, position: int) -> int:
    page, offset = divmod(position - int(step.start[node]), step.page_size)
    return int(step.pages[step.page_begin[node] + page]) * step.page_size + offset


def test_counters_tell_new_tokens_from_repeated_ones_under_pressure() -> None:
    job = three_levels()
    run = drive(job, job.largest_row(PAGE) + 4, PAGE, chunk=64, check=False)
    assert run.scheduler.computed_tokens == distinct_tokens(job)
    decoded = sum(n * (out - 1) for n, out in zip(job.ns, job.outs, strict=True))
    assert run.rows_run == run.scheduler.computed_tokens + run.scheduler.recomputed_tokens + decoded
    assert run.scheduler.peak_pages <= run.scheduler.pool.n_pages


@pytest.mark.parametrize(("rows", "groups", "out", "spare"), [(4, 3, 90, 6), (1, 6, 90, 6), (2, 4, 150, 30)])
def test_what_is_lost_and_computed_again_is_counted(rows: int, groups: int, out: int, spare: int) -> None:
    """Tails are preempted (first case), prompts evicted too (the others); every row that ran is accounted for."""
    prompts = [[g, *[3] * 30, i, *[4] * 9] for g in range(groups) for i in range(rows)]
    job = Job(prompts, [1] * len(prompts), [out] * len(prompts))
    pages = job.largest_row(4) + spare
    scheduler = scheduler_of(job, pages, 4, 32, policy=Policy(admission="headroom"))
    run = drive(job, pages, 4, 32, scheduler=scheduler)
    again = run.rows_run - job.forest.n_tokens - len(prompts) * (out - 1)
    assert run.scheduler.computed_tokens == job.forest.n_tokens and run.scheduler.preemptions > 0
    assert run.scheduler.recomputed_tokens == again > 0
    assert all(run.tokens[key] == expected(job, *key) for key in job.samples)


def test_a_shared_run_is_released_with_its_last_reader() -> None:
    """Two groups, one after the other: the first group's pages are free before the second is done."""
    rng = random.Random(0)
    heads = [[g, *(rng.randrange(40) for _ in range(95))] for g in range(2)]
    job = Job([heads[g] + [g, i] for g in range(2) for i in range(4)], [1] * 8, [2] * 4 + [40] * 4)
    held: list[set[int]] = []
    drive(job, job.demand(PAGE), PAGE, 1000, seen=lambda s, step, slots: held.append(holders(s.kv)))
    first = {n for n in range(job.forest.n_nodes) if job.forest.source[n] < 4}
    assert first <= held[0]
    assert all(not held_now & first for held_now in held[3:]) and len(held) >= 39

"""Every policy gives every row the same answer, returns every page, and lets every row run in the end."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.parameters import few_of
from tests.sched.drive import OFTEN, RARELY, Job, Zeros, apply, drive, expected, scheduler_of
from tests.sched.test_adversarial import chain, equal_prompts, many_children, many_samples
from tests.sched.test_pool_sizes import PAGE, answers, groups
from umbel.errors import UsageError
from umbel.ir.step import Step
from umbel.runner.base import run_step
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler

EACH = pytest.mark.parametrize(
    "policy",
    few_of(OFTEN[::2], (*OFTEN[1::2], *RARELY)),
    ids=lambda p: f"{p.queue}-{p.keep}-{p.admission}-{p.max_running}",
)

FEW = groups(0, 12)


@EACH
@pytest.mark.parametrize("loose", [1, 40])
def test_answers_do_not_depend_on_the_policy(policy: Policy, loose: int) -> None:
    """In forest order and in another, in a tight pool, with limits that mean something and limits that do not."""
    pages = max(FEW.demand(PAGE) // 4, FEW.largest_row(PAGE))
    orders = (None, np.random.default_rng(0).permutation(len(FEW.ns)))
    for order in orders[loose > 1 :]:
        scheduler = scheduler_of(FEW, pages, PAGE, 64, order=order, policy=policy, loose=loose)
        run = drive(FEW, pages, PAGE, 64, scheduler=scheduler, check=loose == 1)
        assert run.tokens == answers(FEW) and not run.failed and run.idle <= 100
        assert scheduler.peak_running <= (policy.max_running or len(FEW.samples))
        assert (scheduler.preemptions > 0) == (scheduler.evicted_rows > 0)
        assert scheduler.evicted_rows <= min(scheduler.preemptions, len(FEW.ns))
        assert 0 < scheduler.occupied_pages <= scheduler.steps * scheduler.peak_pages


@EACH
def test_rows_left_out_of_the_order_never_run_and_nobody_waits_for_them(policy: Policy) -> None:
    job = FEW
    order = np.random.default_rng(1).permutation(len(job.ns))[::2]
    pages = max(job.demand(PAGE) // 8, job.largest_row(PAGE))
    scheduler = scheduler_of(job, pages, PAGE, 64, order=order, policy=policy)
    left_out = next(row for row in range(len(job.ns)) if row not in order)
    scheduler.drop_row(left_out)
    run = drive(job, pages, PAGE, 64, scheduler=scheduler)
    chosen = set(order.tolist())
    assert run.tokens == {key: expected(job, *key) for key in job.samples if key[0] in chosen}


@EACH
@pytest.mark.parametrize("build", [equal_prompts, many_children, many_samples, chain])
def test_adversarial_forests_under_every_policy(policy: Policy, build) -> None:
    job = build(60)
    pages = max(48, job.largest_row(16))
    scheduler = scheduler_of(job, pages, 16, 256, policy=policy)
    run = drive(job, pages, 16, 256, scheduler=scheduler, runner=Zeros(), check=False)
    assert set(run.tokens) == job.samples and not run.failed


def test_a_cache_that_retains_serves_rows_that_come_back() -> None:
    """Two groups in turn: a prefix without running rows stays; one that rests on the plan's order is computed again."""
    job = Job([[g, *[3] * 63, i] for i in range(6) for g in range(2)], [1] * 12, [3] * 12)
    pages = 2 * 16 + 10
    order = np.arange(12)
    policy = Policy(keep="lru", admission="aggressive", max_running=1)
    cached = drive(job, pages, 4, 200, scheduler=scheduler_of(job, pages, 4, 200, order=order, policy=policy))
    assert cached.scheduler.recomputed_tokens == 0 and cached.scheduler.computed_tokens == job.forest.n_tokens
    small = 16 + 10
    again = drive(job, small, 4, 200, scheduler=scheduler_of(job, small, 4, 200, order=order, policy=policy))
    assert again.scheduler.recomputed_tokens >= 10 * 64


def test_the_longest_cached_prefix_goes_first() -> None:
    """Each time a row starts, against a look at every waiting row: its cached tokens, node by node; ties in order."""
    rng = random.Random(3)
    heads = [[h, *(rng.randrange(3) for _ in range(rng.randrange(5, 30)))] for h in range(4)]
    prompts = [rng.choice(heads)[: rng.randrange(4, 30)] + [rng.randrange(3) for _ in range(3)] for _ in range(80)]
    job = Job(prompts, [rng.choice((1, 1, 2)) for _ in prompts], [rng.randrange(1, 20) for _ in prompts])
    order = np.random.default_rng(0).permutation(len(prompts))
    policy = Policy(queue="longest-prefix", keep="lru", admission="aggressive")
    pages = job.largest_row(4) * 3
    scheduler = scheduler_of(job, pages, 4, 40, order=order, policy=policy)
    checked, waiting, kv = [], scheduler.waiting, scheduler.kv
    take = waiting.take

    def cached(row: int) -> int:
        return sum(int(kv.held[n]) for n in kv.path(int(kv.leaf[row])) if kv.n_pages[n])

    def watched(rank: int) -> None:
        if rank not in scheduler.seqs.slot_of:
            tokens = {r: cached(int(waiting.rows[r])) for r in range(len(waiting.rows)) if not waiting._started[r]}
            assert rank == min(tokens, key=lambda r: (-tokens[r], r))
            checked.append(tokens[rank])
        take(rank)

    waiting.take = watched  # type: ignore[method-assign]
    run = drive(job, pages, 4, 40, scheduler=scheduler)
    assert run.tokens == answers(job)
    assert len(checked) == len(job.samples) and sum(tokens > 4 for tokens in checked) > 40


def test_a_policy_names_what_it_does_not_know() -> None:
    with pytest.raises(UsageError, match="did you mean 'lru'"):
        Policy(keep="lur")
    with pytest.raises(UsageError, match="max_running=0"):
        Policy(max_running=0)
    with pytest.raises(UsageError, match="overflow"):
        Policy(overflow=1.0)


def test_tails_are_not_cached() -> None:
    """What a row generated is given back with it, also where prompts stay (servers keep it a while)."""
    job = Job([[1, 2, 3, 4]], [1], [40])
    held: list[int] = []

    def note(scheduler: Scheduler, step: Step, slots: np.ndarray) -> None:
        held.append(scheduler.pool.used)

    scheduler = scheduler_of(job, 20, 4, 64, policy=Policy(keep="lru", admission="aggressive"))
    while (step := scheduler.next()) is not None:
        slots = apply(scheduler, run_step(Zeros(), step))
        for slot in slots[scheduler.seqs.n_out[slots] == 40].tolist():
            scheduler.finish(slot)
        note(scheduler, step, slots)
    assert max(held) == 11 and held[-1] == 1

"""Adversarial forests at the scheduler: many equal prompts, wide nodes, deep chains, one huge prompt (goal 16)."""

from __future__ import annotations

import os

import pytest

from tests.growth import assert_growth
from tests.parameters import some_of
from tests.sched.drive import Job, Run, Zeros, drive

PAGE = 16
FULL = int(os.environ.get("UMBEL_ADVERSARIAL_ROWS", "10000"))


def equal_prompts(n: int) -> Job:
    return Job([[1, 2, 3]] * n, [1] * n, [2] * n)


def many_children(n: int) -> Job:
    return Job([[0] * 40 + [i] for i in range(n)], [1] * n, [2] * n)


def chain(n: int) -> Job:
    """Prompt i is the first i + 1 tokens of the last one: a path of n nodes."""
    tokens = [i % 47 for i in range(n)]
    return Job([tokens[: i + 1] for i in range(n)], [1] * n, [2] * n)


def long_prompt(n: int) -> Job:
    return Job([[i % 47 for i in range(2 * n)]], [1], [4])


def many_samples(n: int) -> Job:
    return Job([[1, 2, 3]], [n], [2])


def run_of(job: Job, pages: int, chunk: int = 512) -> Run:
    return drive(job, pages, PAGE, chunk, runner=Zeros(), check=False)


@pytest.mark.parametrize("build", some_of([many_children, long_prompt], [equal_prompts, many_samples]))
def test_time_grows_with_the_work(build) -> None:
    """Ten times the rows may take 30 times the time, no more; under a quadratic rule it would be 100."""
    small, large = build(FULL // 10), build(FULL)
    run = run_of(large, large.demand(PAGE))
    assert set(run.tokens) == large.samples and not run.failed
    assert run.scheduler.computed_tokens == large.forest.n_tokens
    assert_growth(lambda: run_of(small, small.demand(PAGE)), lambda: run_of(large, large.demand(PAGE)), limit=30)


@pytest.mark.parametrize("build", [equal_prompts, many_children])
def test_a_small_pool_gives_every_row_its_turn(build) -> None:
    job = build(FULL // 10)
    run = run_of(job, 64)
    assert set(run.tokens) == job.samples and not run.failed
    assert run.scheduler.computed_tokens == job.forest.n_tokens


def test_a_chain_a_thousand_deep() -> None:
    """No recursion: a path longer than Python's recursion limit, in a pool of just that path and in one for all."""
    job = chain(1050)
    for pages in (job.demand(PAGE), job.largest_row(PAGE)):
        run = run_of(job, pages)
        assert set(run.tokens) == job.samples and not run.failed
        assert run.scheduler.computed_tokens == 1050


def test_a_huge_prompt_in_small_chunks() -> None:
    job = long_prompt(10_000)
    for chunk in (64, 2048):
        run = run_of(job, job.demand(PAGE), chunk)
        assert run.steps == -(-20_000 // chunk) + 3 and run.rows_run == 20_003

"""Rows find the inputs of the tokens before them in every step that a scheduler hands out."""

from __future__ import annotations

import pytest

from tests.kv.window_runner import WindowRunner
from tests.sched.drive import POLICIES, VOCAB, Job, drive, expected, scheduler_of
from umbel.sched.policies.policy import Policy

PROMPTS = [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 9], [1, 2, 3], [1], [7, 8] * 9]
JOB = Job(PROMPTS, [1, 3, 1, 2, 1, 1], [9, 7, 8, 1, 12, 3])


@pytest.mark.parametrize("taps", [2, 3, 5])
@pytest.mark.parametrize("page_size", [1, 2, 4, 16])
@pytest.mark.parametrize("chunk", [1, 3, 200])
def test_windows_are_those_of_the_path(chunk: int, page_size: int, taps: int) -> None:
    """In large pools and in the smallest, where samples are preempted and shared runs computed again."""
    for pages in (JOB.demand(page_size), JOB.largest_row(page_size) + 1):
        runner = WindowRunner(pages, page_size, VOCAB, taps)
        scheduler = scheduler_of(JOB, pages, page_size, chunk, policy=Policy(admission="aggressive"))
        run = drive(JOB, pages, page_size, chunk, runner=runner, scheduler=scheduler)
        assert run.tokens == {key: expected(JOB, *key) for key in JOB.samples}
        assert runner.kept_read > 0
    assert chunk < 200 or page_size == 16 or scheduler.preemptions > 0


@pytest.mark.parametrize("policy", POLICIES[::5])
def test_whatever_the_policy(policy) -> None:
    pages = JOB.largest_row(2) + 2
    scheduler = scheduler_of(JOB, pages, 2, 5, policy=policy)
    drive(JOB, pages, 2, 5, runner=WindowRunner(pages, 2, VOCAB), scheduler=scheduler)

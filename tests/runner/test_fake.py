"""The fake runner notices what it is there to notice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.sched.drive import VOCAB, Job, apply, expected, scheduler_of
from umbel.runner.base import run_step
from umbel.runner.fake import FakeRunner


def second_step(pages: int = 20):
    """A job of two rows behind one node, one step in."""
    job = Job([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7]], [1, 1], [3, 3])
    scheduler, runner = scheduler_of(job, pages, 4, 100), FakeRunner(pages, 4, VOCAB)
    first = scheduler.next()
    assert first is not None
    apply(scheduler, run_step(runner, first))
    step = scheduler.next()
    assert step is not None
    return job, step, runner


def test_right_pages_give_the_right_tokens() -> None:
    job, step, runner = second_step()
    assert run_step(runner, step).token_ids.tolist() == [expected(job, row, 0)[1] for row in (0, 1)]


def test_a_wrong_page_shows() -> None:
    job, step, runner = second_step()
    pages = step.pages.copy()
    pages[0], pages[2] = pages[2], pages[0]
    assert run_step(runner, replace(step, pages=pages)).token_ids.tolist() != [
        expected(job, row, 0)[1] for row in (0, 1)
    ]


def test_a_row_said_to_be_stored_must_be_stored() -> None:
    _, step, runner = second_step()
    with pytest.raises(AssertionError, match="not in its slot"):
        run_step(runner, replace(step, fresh=np.zeros_like(step.fresh)))

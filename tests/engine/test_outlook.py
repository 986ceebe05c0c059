"""What is left of a run, by histories that are made up: tokens by lengths and limits, seconds by the pace of steps."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from umbel.cost.lengths import LengthBook, LengthCurve
from umbel.cost.load import Load
from umbel.engine.outlook import EVERY_SECONDS, Outlook, RowEnds, left_of
from umbel.ir.params import SamplingParams
from umbel.plan.passes.lengths import UNBOUNDED

STEP_SECONDS = 0.1
RUNNING = 4
FIXED = SamplingParams(max_tokens=50, ignore_eos=True)


def loop_of(
    params: Sequence[SamplingParams], made: int, limit: int, curve: LengthCurve | None = None, steps: int = 20
) -> Any:
    """A loop whose first `RUNNING` rows run and have written `made` tokens, and whose others wait; each may write
    `limit`. Its last steps had a token for each that ran, and took a tenth of a second."""
    rows = np.arange(len(params))
    book = LengthBook({} if curve is None else {"": curve})
    book.add_rows(np.zeros(len(params), np.int64), ("",))
    seqs = SimpleNamespace(
        slot_of={rank: rank for rank in range(RUNNING)},
        row=rows,
        n_out=np.full(len(rows), made),
        max_out=np.full(len(rows), limit),
        n_running=RUNNING,
    )
    ones = np.ones(steps)
    load = Load(ones, ones * RUNNING, ones * RUNNING, ones, ones)
    scheduler = SimpleNamespace(
        seqs=seqs,
        requests=SimpleNamespace(limit=np.full(len(rows), limit), params=list(params)),
        lengths=book,
        waiting=SimpleNamespace(rows_to_start=lambda: rows[RUNNING:]),
        planned_tokens=100,
        computed_tokens=100,
        peak_running=RUNNING,
        chunk=64,
    )
    meter = SimpleNamespace(load=lambda: load, seconds=lambda: ones * STEP_SECONDS)
    return SimpleNamespace(scheduler=scheduler, meter=meter)


def test_rows_that_only_their_limit_can_end_run_to_it() -> None:
    """Four that run have 40 tokens left each: 40 steps. Eight that wait take their places: 100 steps more."""
    running = [FIXED] * RUNNING
    left = left_of(loop_of(running, 10, 50), RowEnds.of(running))
    assert left.output_tokens == 160 and left.seconds == pytest.approx(40 * STEP_SECONDS, rel=0.03)
    rows = [FIXED] * (RUNNING + 8)
    left = left_of(loop_of(rows, 10, 50), RowEnds.of(rows))
    assert left.output_tokens == pytest.approx(160 + 400, rel=0.01)
    assert left.seconds == pytest.approx(140 * STEP_SECONDS, rel=0.03)


def test_answers_are_as_long_as_earlier_ones_were() -> None:
    """All that ended had 20 tokens: those that have 10 are expected to write 10 more, and not 390."""
    rows = [SamplingParams(max_tokens=400)] * RUNNING
    known = LengthCurve.of(np.full(500, 20))
    left = left_of(loop_of(rows, 10, 400, known), RowEnds.of(rows))
    assert 10 * RUNNING <= left.output_tokens < 20 * RUNNING
    nothing = left_of(loop_of(rows, 10, 400), RowEnds.of(rows))
    assert nothing.output_tokens == pytest.approx(390 * RUNNING, rel=0.01)


def test_rows_without_limit_have_what_a_plan_assumes_until_one_has_ended() -> None:
    rows = [SamplingParams()] * RUNNING
    left = left_of(loop_of(rows, 28, 8000), RowEnds.of(rows))
    assert left.output_tokens == pytest.approx((UNBOUNDED - 28) * RUNNING, rel=0.02)
    known = LengthCurve.of(np.full(500, 60))
    learned = left_of(loop_of(rows, 28, 8000, known), RowEnds.of(rows))
    assert 32 * RUNNING <= learned.output_tokens < 64 * RUNNING


def test_too_few_steps_give_no_seconds() -> None:
    rows = [FIXED] * RUNNING
    left = left_of(loop_of(rows, 10, 50, steps=2), RowEnds.of(rows))
    assert left.seconds is None and left.output_tokens == 160


def test_an_outlook_counts_down_and_is_renewed_when_it_is_due() -> None:
    now = [100.0]
    outlook = Outlook(lambda: now[0])
    rows = [FIXED] * RUNNING
    outlook.look(loop_of(rows, 10, 50))
    first = outlook.left().seconds
    assert first is not None
    now[0] += EVERY_SECONDS / 2
    outlook.look(loop_of(rows, 40, 50))  # too early to count
    assert outlook.left().seconds == pytest.approx(first - EVERY_SECONDS / 2)
    now[0] += EVERY_SECONDS
    outlook.look(loop_of(rows, 40, 50))
    assert outlook.left().output_tokens == 10 * RUNNING
    now[0] += 1000.0
    assert outlook.left().seconds == 0.0
    outlook.over()
    assert outlook.left().output_tokens == 0

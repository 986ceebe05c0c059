"""The meter: exact totals in bounded memory, and pairs as a walk over every token counts them."""

from __future__ import annotations

import random
from math import inf

import numpy as np
import pytest

from tests.attention.stage import random_job, steps_of
from umbel.cost.meter import Meter
from umbel.cost.windows import Windows, WindowShare
from umbel.ir.step import Step


def steps(seed: int = 0) -> list[Step]:
    return [step for _, step in steps_of(random_job(random.Random(seed), 12), 400, 16, 96)]


@pytest.mark.parametrize("window", [None, 20])
def test_what_each_step_did(window: int | None) -> None:
    meter, ran = Meter(Windows((WindowShare(window or inf),))), steps()
    for i, step in enumerate(ran):
        meter.add(step, kv_read=10 * i, seconds=0.5 * i)
    load = meter.load()
    seen = [sum(min(p + 1, window or p + 1) for p in step.positions.tolist()) for step in ran]
    assert load.steps.tolist() == [1] * len(ran)
    assert load.tokens.tolist() == [len(step.tokens) for step in ran]
    assert load.samples.tolist() == [len(step.sampling.at) for step in ran]
    assert load.pairs.tolist() == seen
    assert load.draws.tolist() == [sum(t > 0 for t in step.sampling.temperature.tolist()) for step in ran]
    assert load.kv_read.tolist() == [10 * i for i in range(len(ran))]
    assert meter.seconds().tolist() == [0.5 * i for i in range(len(ran))]


@pytest.mark.parametrize("count", [7, 8, 9, 40, 1001])
def test_memory_is_bounded_and_totals_are_exact(count: int) -> None:
    meter, ran = Meter(entries=8), steps()
    for i in range(count):
        meter.add(ran[i % len(ran)], kv_read=i, seconds=float(i))
    load, seconds = meter.load(), meter.seconds()
    assert len(seconds) <= 8
    assert load.steps.sum() == count
    assert (load.tokens * load.steps).sum() == pytest.approx(sum(ran[i % len(ran)].n_rows for i in range(count)))
    assert (load.kv_read * load.steps).sum() == pytest.approx(count * (count - 1) / 2)
    assert (seconds * load.steps).sum() == pytest.approx(meter.total_seconds) == count * (count - 1) / 2
    # in order: later entries are of later steps
    assert (np.diff(seconds) > 0).all()


def test_nothing_ran() -> None:
    meter = Meter()
    assert len(meter.seconds()) == 0 == len(meter.load().steps) == meter.total_seconds

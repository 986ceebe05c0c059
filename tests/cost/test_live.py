"""Prices of a run follow the steps that it measures."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.attention.stage import random_job, steps_of
from umbel.cost.cards import named
from umbel.cost.live import FIRST, LivePrice
from umbel.cost.load import Load
from umbel.cost.meter import Meter
from umbel.cost.roofline import Price
from umbel.cost.shape import Shape
from umbel.ir.spec import ModelSpec

SPEC = ModelSpec("llama", 100, 64, 2, 4, 2, 16, 128, 64, 1e-5, 1e4, dtype="float32")


def test_prices_are_fitted_to_the_steps_of_the_run() -> None:
    steps = [step for _, step in steps_of(random_job(random.Random(0), 24), 400, 16, 96)]
    meter = Meter()
    price = Price(Shape.of(SPEC, "float32"), named("h200"), "float32", SPEC.n_layers)
    live, load = LivePrice(price, meter), Load.one(40, 8, 400, 400)
    assert live.each(load) == price.each(load)
    renewed = []
    for i in range(4 * FIRST):
        step = steps[i % len(steps)]
        meter.add(step, kv_read=len(step.tokens), seconds=0.5 + 0.01 * step.n_rows)
        renewed.append(live.renewed())
    assert np.flatnonzero(renewed).tolist() == [FIRST - 1, 2 * FIRST - 1, 4 * FIRST - 1]
    assert live.each(load).item() == pytest.approx(0.5 + 0.01 * 40, rel=0.3)
    assert live.each(load).item() > 100 * price.each(load).item()
    assert price.calibration is None
    known = live.each(load).item()
    meter.clear()
    assert not live.renewed() and live.each(load).item() == known, "what a cleared meter has taught stays"
    renewed = []
    for i in range(FIRST):
        step = steps[i % len(steps)]
        meter.add(step, kv_read=len(step.tokens), seconds=5.0 + 0.1 * step.n_rows)
        renewed.append(live.renewed())
    assert np.flatnonzero(renewed).tolist() == [FIRST - 1], "and it is read again from then on"
    assert live.each(load).item() > 1.2 * known

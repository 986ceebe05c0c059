"""Fits against machines whose costs are known: recovered, held to the prior, not shaken by stalls, kept in JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from umbel.cost.calibration import FEATURES, SIGMA_LEAST, SIGMA_MOST, Calibration, features
from umbel.cost.cards import named
from umbel.cost.load import Load
from umbel.cost.roofline import Price
from umbel.cost.shape import Shape
from umbel.ir.spec import ModelSpec

SPEC = ModelSpec("llama", 4000, 256, 6, 4, 2, 64, 640, 4096, 1e-5, 1e4)
TRUTH = np.array([8e-3, 3e-4, 1.6e-4, 7e-5, 1e-7, 2.4e-6, 1.2e-5, 2e-4])
PRIOR = TRUTH * np.array([0.4, 1.5, 2.0, 0.3, 1.0, 0.5, 3.0, 0.5])


def steps(n: int, seed: int) -> Load:
    """Decodes and prompts of all sizes."""
    draw = np.random.default_rng(seed)
    tokens = np.floor(2 ** draw.uniform(0, 9, n))
    context = np.floor(2 ** draw.uniform(2, 11, n))
    samples = np.floor(tokens * draw.choice([0.0, 0.1, 1.0], n))
    draws = samples * draw.choice([0.0, 1.0], n)
    return Load(np.ones(n), tokens, samples, tokens * context, context * draw.uniform(1, tokens), draws)


def true_seconds(load: Load, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    return features(load) @ TRUTH * np.exp(noise * np.random.default_rng(seed).standard_normal(len(load.steps)))


def error(fit: Calibration, load: Load) -> float:
    return float(np.quantile(np.abs(fit.each(load) / true_seconds(load) - 1), 0.95))


def test_features_say_what_a_step_does() -> None:
    both = Load(*(np.array(v, float) for v in ([1, 1], [10, 100], [10, 3], [500, 4000], [400, 90], [0, 2])))
    assert features(both).tolist() == [[1, 10, 0, 10, 500, 400, 50, 0], [1, 64, 36, 3, 4000, 90, 40, 2]]
    assert both.drawing(0.5).draws.tolist() == [5, 1.5] and both.drawing(0.5).pairs is both.pairs
    assert features(both.pick(np.array([False, True]))).tolist() == features(both)[1:].tolist()
    assert features(Load.one(10, 10, 500, 400)).tolist() == features(both)[:1].tolist()
    assert len(FEATURES) == features(both).shape[1]


def test_before_anything_is_measured_the_prior_stands() -> None:
    load = steps(20, 0)
    fit = Calibration.start(PRIOR)
    assert fit.each(load) == pytest.approx(features(load) @ PRIOR)
    assert fit.learn(steps(0, 0), np.zeros(0)) is fit


def test_the_truth_is_found() -> None:
    fit, load = Calibration.start(PRIOR), steps(300, 1)
    for seed in range(4):
        load = steps(300, seed)
        fit = fit.learn(load, true_seconds(load, 0.05, seed))
    assert error(fit, steps(500, 99)) < 0.08
    assert fit.steps == 1200 and fit.jobs == 4
    assert fit.sigma < 0.15


def test_a_few_steps_never_give_nonsense() -> None:
    decodes = Load.one(tokens=4, samples=4, pairs=400, kv_read=400)
    fit = Calibration.start(PRIOR).learn(decodes, true_seconds(decodes) * 2)
    assert (fit.coefficients >= 0).all()
    prompts = Load.one(tokens=512, samples=1, pairs=512 * 256, kv_read=512)
    assert 0.2 < float(fit.each(prompts)[0] / true_seconds(prompts)[0]) < 8
    assert float(fit.each(decodes)[0] / true_seconds(decodes)[0]) == pytest.approx(2, rel=0.3)


def test_stalls_lift_the_level_and_leave_the_shape() -> None:
    load = steps(300, 3)
    seconds = true_seconds(load, 0.02)
    stalled = seconds.copy()
    stalled[::25] *= 8
    fit = Calibration.start(PRIOR).learn(load, stalled)
    assert fit.level > 0.05
    assert float((features(load) @ fit.coefficients).sum() / seconds.sum()) == pytest.approx(1, abs=0.08)
    assert float(fit.each(load).sum() / stalled.sum()) == pytest.approx(1, abs=0.08)


def test_a_disturbed_run_is_half_believed() -> None:
    fit = Calibration.start(PRIOR)
    for seed in range(4):
        load = steps(300, seed)
        fit = fit.learn(load, true_seconds(load, 0.05, seed))
    load = steps(300, 50)
    shaken = fit.learn(load, 30 * true_seconds(load))
    assert shaken.sigma > fit.sigma  # and the interval says so
    calm = shaken
    for seed in range(3):
        load = steps(300, seed)
        calm = calm.learn(load, true_seconds(load, 0.05, seed))
    assert error(calm, steps(500, 99)) < 0.6
    assert SIGMA_LEAST <= calm.sigma <= SIGMA_MOST


def test_the_same_steps_again_are_expected_better() -> None:
    """A workload that the features do not describe quite right is expected more closely the second time."""
    fit = Calibration.start(PRIOR)
    for seed in range(5):
        load = steps(200, seed)
        fit = fit.learn(load, true_seconds(load, 0.05, seed))
    odd = Load(np.ones(30), np.full(30, 20.0), np.full(30, 20.0), np.full(30, 4000.0), np.full(30, 3000.0))
    seconds = 1.3 * true_seconds(odd, 0.02)
    first = float(fit.each(odd).sum() / seconds.sum())
    second = float(fit.learn(odd, seconds).each(odd).sum() / seconds.sum())
    assert abs(second - 1) < abs(first - 1) / 2


def test_numbers_survive_json() -> None:
    load = steps(100, 0)
    fit = Calibration.start(PRIOR).learn(load, true_seconds(load, 0.1))
    text = json.dumps(fit.as_dict())
    again = Calibration.of_dict(json.loads(text))
    assert again.each(load) == pytest.approx(fit.each(load), rel=1e-9)
    assert (again.sigma, again.level, again.steps, again.jobs) == (fit.sigma, fit.level, fit.steps, fit.jobs)
    assert len(text) < 4000


@pytest.mark.parametrize(
    "change", [{"gram": []}, {"prior": [0.0] * 8}, {"mass": math.nan}, {"features": ["step"]}, {"cross": [-1.0] * 8}]
)
def test_damaged_numbers_are_refused(change: dict[str, object]) -> None:
    load = steps(10, 0)
    values = Calibration.start(PRIOR).learn(load, true_seconds(load)).as_dict()
    with pytest.raises((ValueError, KeyError, TypeError)):
        Calibration.of_dict(values | change)


def test_a_calibrated_price_says_what_was_measured() -> None:
    price = Price(Shape.of(SPEC, "float32"), named("h200"), "float32", SPEC.n_layers)
    load = steps(300, 1)
    assert (price.prior() > 0).all() and price.source == price.machine.source
    fit = Calibration.start(price.prior()).learn(load, true_seconds(load, 0.05))
    fitted = Price(price.shape, price.machine, price.dtype, price.n_layers, fit)
    total = fitted.total(load)
    assert total.low < total.expected < total.high
    assert total.expected == pytest.approx(float(true_seconds(load).sum()), rel=0.1)
    assert total.high / total.expected == pytest.approx(total.expected / total.low)
    assert "300 steps of 1 earlier run" in fitted.source

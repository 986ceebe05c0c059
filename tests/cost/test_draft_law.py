"""The law of a drafter: beside the likeliest line by brute force, and beside drafts that are simulated."""

from __future__ import annotations

import numpy as np
import pytest

from umbel.cost.draft_law import PLACES, WEIGHTS, DraftLaw
from umbel.cost.drafts import Bargain, Decodes
from umbel.cost.load import Load
from umbel.cost.roofline import Floats


def priced(token: float, knee: float = 1e9):  # type: ignore[no-untyped-def]
    """Seconds of a step: a fixed part, a part for each token, ten times as much for each token beyond a knee."""

    def seconds(load: Load) -> Floats:
        return 1e-3 + token * (load.tokens + 9 * np.maximum(load.tokens - knee, 0))

    return seconds


def simulated(chances: Floats, longer: float, most: int, samples: int, seed: int) -> tuple[DraftLaw, float, float]:
    """What a drafter does whose drafts get longer with probability `longer` and come true with `chances`: the law of
    it, and tokens drafted and accepted a sample."""
    draw, shape = np.random.default_rng(seed), (samples, most)
    has = np.cumprod(draw.random(shape) < longer, axis=1)
    true = np.cumprod((draw.random(shape) < chances[:most]) * has, axis=1)
    tried = has * np.concatenate([np.ones((samples, 1), int), true[:, :-1]], axis=1)
    counts = [np.append(part.sum(0), np.zeros(PLACES - most)).astype(float) for part in (has, tried, true)]
    return DraftLaw(float(samples), *counts), has.sum() / samples, true.sum() / samples


@pytest.mark.parametrize("token", [1e-6, 5e-5, 2e-4, 1e-3])
@pytest.mark.parametrize("slope", [0.0, -0.4])
@pytest.mark.parametrize("longer", [1.0, 0.9])
@pytest.mark.parametrize("samples, near", [(400, 0.2), (40_000, 0.04)])  # of the gain, seven standard errors
def test_a_law_finds_the_best_length(
    seed: int, token: float, slope: float, longer: float, samples: int, near: float
) -> None:
    """Every length is then simulated with many drafts, and timed."""
    chances = 1 / (1 + np.exp(-(1.2 + slope * np.log(np.arange(1, PLACES + 1)))))
    law = simulated(chances, longer, PLACES, samples, seed)[0]
    step, seconds = Decodes(8, 50.0), priced(token, knee=40)
    speeds = [1 / seconds(step.load(np.zeros(1))).item()]
    for most in range(1, PLACES + 1):
        _, drafted, accepted = simulated(chances, longer, most, 10_000, seed + 1)
        speeds.append((1 + accepted) / seconds(step.load(np.array([8 * drafted]))).item())
    most, bargain = law.best(step, seconds)
    assert speeds[most] >= 0.95 * max(speeds)
    assert bargain.gain == pytest.approx(speeds[most] / speeds[0], rel=near)


def test_the_line_is_the_likeliest(seed: int) -> None:
    draw = np.random.default_rng(seed)
    tried = draw.integers(0, 40, PLACES).astype(float)
    law = DraftLaw(100.0, tried, tried, np.floor(tried * draw.random(PLACES)))

    def score(first: float, slope: float) -> float:
        odds = 1 / (1 + np.exp(-(first + slope * np.log(np.arange(1, PLACES + 1)))))
        line = np.array([first, slope])
        fits = law.true * np.log(odds) + (law.tried - law.true) * np.log(1 - odds)
        return float(fits.sum() - line @ WEIGHTS @ line / 2)

    best = score(*law.line)
    around = draw.normal(law.line, [[0.01]] * 50 + [[1.0]] * 50)
    assert all(score(*one) <= best + 1e-9 for one in around.tolist())


def test_the_line_holds_when_all_or_none_came_true() -> None:
    many, none = np.full(PLACES, 1e5), np.zeros(PLACES)
    assert DraftLaw(1e5, many, many, many).chances.min() > 0.999
    assert DraftLaw(1e5, many, many, none).chances.max() < 0.001
    assert DraftLaw(1e5, many, many, many).is_known and not DraftLaw.none().is_known
    assert DraftLaw.none().best(Decodes(8, 50.0), priced(1e-6)) == (0, Bargain())


def test_what_it_would_take() -> None:
    """A drafter that is right so often pays, and one that is right less often does not."""
    step, seconds = Decodes(64, 50.0), priced(1e-5)
    checked = np.append(1e6, np.zeros(PLACES - 1))

    def pays(chance: float) -> bool:
        return DraftLaw(1e6, checked, checked, checked * chance).best(step, seconds)[0] > 0

    needed = DraftLaw(1e6, checked, checked, checked).needed(step, seconds)
    assert 0.1 < needed < 1
    assert pays(needed + 0.01) and not pays(needed - 0.01)


def test_proposing_that_takes_long_asks_for_less() -> None:
    chances = np.full(PLACES, 0.8)
    law, step = simulated(chances, 1.0, PLACES, 4000, 0)[0], Decodes(1, 50.0)
    free = law.best(step, priced(1e-6))
    slow = DraftLaw(law.asked, law.checked, law.tried, law.true, rounds=1000.0, seconds=0.3)  # 0.3 ms a place
    assert free[0] == PLACES
    assert 0 < slow.best(step, priced(1e-6))[0] < free[0]
    assert slow.scaled(0.1).best(step, priced(1e-6))[0] == slow.best(step, priced(1e-6))[0]
    never = DraftLaw(law.asked, law.checked, law.tried, law.true, rounds=1000.0, seconds=2.0)
    assert never.best(step, priced(1e-6))[0] == 0


def test_laws_are_kept_and_added_up(seed: int) -> None:
    law = simulated(np.full(PLACES, 0.7), 0.8, 4, 300, seed)[0]
    again = DraftLaw.of_json(law.to_json())
    assert again.to_json() == law.to_json()
    assert law.joined(law).to_json() == law.scaled(2.0).to_json()


@pytest.mark.parametrize("change", [{"true": [9.0] * PLACES}, {"tried": [1.0]}, {"asked": -1.0}, {"seconds": np.inf}])
def test_laws_that_are_none(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"a law has counts for 16 places|inhomogeneous"):
        DraftLaw.of_json(DraftLaw.none().to_json() | change)

"""How many proposed tokens are worth checking: beside trying every number, and where nothing is gained any more."""

from __future__ import annotations

import numpy as np
import pytest

from umbel.cost.drafts import LEAST_GAIN, LEVELS, Bargain, Decodes, Offers, levels_of
from umbel.cost.load import Load
from umbel.cost.roofline import Floats


def priced(step: float, token: float, knee: float = 1e9):  # type: ignore[no-untyped-def]
    """Seconds of a step: a fixed part, a part for each token, ten times as much for each token beyond a knee."""

    def seconds(load: Load) -> Floats:
        return step + token * (load.tokens + 9 * np.maximum(load.tokens - knee, 0))

    return seconds


def random_offers(seed: int) -> Offers:
    draw = np.random.default_rng(seed)
    return Offers(100.0, draw.integers(0, 60, LEVELS).astype(float))


@pytest.mark.parametrize("token", [1e-6, 1e-4, 1e-3, 1e-2])
def test_the_best_bargain_is_the_best_of_all(seed: int, token: float) -> None:
    offers, step, seconds = random_offers(seed), Decodes(8, 50.0, 3), priced(1e-3, token, knee=40)
    found = offers.best(step, seconds)
    speeds = {}
    for least in range(LEVELS + 1):  # check all tokens from this level of chances on
        drafted = sum(offers.counts[least:]) / offers.asked
        accepted = sum(offers.counts[i] * (i + 0.5) / LEVELS for i in range(least, LEVELS)) / offers.asked
        time = seconds(step.load(np.array([8 * drafted]))).item()
        speeds[drafted, accepted] = (1 + accepted) / time
    none, best = speeds[0.0, 0.0], max(speeds.values())
    if best < LEAST_GAIN * none:
        assert found == Bargain()
    else:
        assert found.gain == pytest.approx(best / none)
        assert any(np.allclose((found.drafted, found.accepted), pair) for pair, s in speeds.items() if s == best)


def test_the_load_of_a_step_with_drafts() -> None:
    load = Decodes(4, 10.0, 5).load(np.array([0.0, 6.0]))
    assert load.tokens.tolist() == [9, 15]
    assert load.samples.tolist() == [4, 10]
    assert load.pairs.tolist() == [40, 100]
    assert load.kv_read.tolist() == [40, 40]


def test_samples_at_which_speculation_stops_paying() -> None:
    offers, seconds = Offers(10.0, np.append(np.zeros(LEVELS - 1), 20.0)), priced(1e-3, 1e-5, knee=64)
    step = Decodes(1, 100.0)
    found = offers.break_even(step, seconds, 4096)
    pays = [offers.best(Decodes(n, 100.0), seconds).gain > 1 for n in range(1, 200)]
    assert found == pays.index(False)
    assert 8 < found < 64
    assert offers.break_even(step, priced(1e-3, 1e-9), 300) == 300  # tokens are free
    assert offers.break_even(step, priced(1e-9, 1e-3), 300) == 0
    assert Offers.none().break_even(step, seconds, 300) == 0


def test_offers_are_kept_and_added_up(seed: int) -> None:
    offers = random_offers(seed)
    again = Offers.of_json(offers.to_json())
    assert (again.asked, again.counts.tolist()) == (offers.asked, offers.counts.tolist())
    both = offers.joined(offers)
    assert both.best(Decodes(4, 9.0), priced(1e-3, 1e-5)) == offers.best(Decodes(4, 9.0), priced(1e-3, 1e-5))
    assert both.scaled(50).asked == 50


@pytest.mark.parametrize(
    "values",
    [{"asked": 1, "counts": [1.0]}, {"asked": -1, "counts": [0.0] * LEVELS}, {"asked": 1, "counts": [-1.0] * LEVELS}],
)
def test_offers_that_are_none(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="offers are a number and 20 counts"):
        Offers.of_json(values)


def test_levels_of_chances() -> None:
    assert levels_of(np.array([0.0, 0.049, 0.05, 0.999, 1.0])).tolist() == [0, 0, 1, LEVELS - 1, LEVELS - 1]

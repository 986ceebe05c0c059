"""How many tokens are checked: by brute force over all numbers, and when no sample is asked for during a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from umbel.cost.load import Load
from umbel.cost.roofline import Floats
from umbel.spec.base import Decoding, Drafts
from umbel.spec.priced import MOST, REST_LEAST, REVIEW, PricedDepth


class Flat:
    """A step takes a fixed time, and each token of it more."""

    def __init__(self, step: float = 1e-3, token: float = 1e-5):
        self.step, self.token, self.changed = step, token, False

    def renewed(self) -> bool:
        changed, self.changed = self.changed, False
        return changed

    def each(self, load: Load) -> Floats:
        return self.step + self.token * load.tokens


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that goes on by so much whenever it is read."""
    reads: Iterator[int] = iter(range(10**9))
    return lambda: next(reads) * seconds


def decoding(samples: int, others: int = 0) -> Decoding:
    ranks, zeros = np.arange(samples) * 3, np.zeros(samples, np.int64)
    return Decoding(ranks, zeros, zeros + 5, zeros + 40, samples + others)


def drafts_of(each: list[list[float]]) -> Drafts:
    """Drafts whose tokens are so likely."""
    likely = np.array([one for some in each for one in some])
    return Drafts(np.zeros(len(likely), np.int64), np.cumsum([0, *map(len, each)]), likely)


@pytest.mark.parametrize("token", [1e-6, 2e-5, 1e-4, 3e-4, 1e-3])
def test_the_tokens_that_give_the_most_in_a_second_are_kept(seed: int, token: float) -> None:
    draw = np.random.default_rng(seed)
    each = [draw.random(draw.integers(0, MOST)).tolist() for _ in range(6)]
    drafts, depth, step = drafts_of(each), PricedDepth(Flat(token=token), ticking(0.0)), decoding(6)
    for _ in range(40 * REVIEW):  # it begins with care
        most = depth.most(step)
        assert set(most.tolist()) in ({0}, {MOST})
        if most.any():
            counts = depth.keep(np.arange(6), drafts)
    owner = np.repeat(np.arange(6), drafts.counts)
    acceptance = depth._acceptance
    chances = acceptance.chances(acceptance.cases(step.groups, step.places, owner, drafts), owner, drafts.begin)
    ways = sorted(chances.tolist(), reverse=True)
    # Prices between the points of a curve are those of a straight line, so that they may be a little off.
    speeds = [(6 + sum(ways[:n])) / (1e-3 + token * (6 + n)) for n in range(len(ways) + 1)]
    chosen = int(counts.sum())
    assert speeds[chosen] >= max(speeds) * 0.99
    assert sorted(chances[np.arange(len(owner)) - drafts.begin[owner] < counts[owner]], reverse=True) == ways[:chosen]


def test_the_choice_does_not_flip_with_every_step() -> None:
    depth, step = PricedDepth(Flat(token=1e-4), ticking(0.0)), decoding(4)
    found = []
    for i in range(80):
        depth.most(step)
        drafts = drafts_of([[0.9, 0.6 if i // REVIEW % 2 else 0.5]] * 4)
        found.append(depth.keep(np.arange(4), drafts).sum().item())
    assert len({tuple(found[i : i + REVIEW]) for i in range(40, 80, REVIEW)}) <= 2


def test_what_a_token_must_be_does_not_depend_on_what_others_were() -> None:
    """By price a token pays that comes true two times in ten: also behind steps of which nothing was known, and ones in
    which all were nearly certain."""
    depth, step, kept = PricedDepth(Flat(token=2e-5), ticking(0.0)), decoding(8), []
    for each in [[]] * REVIEW, [[0.97] * 4] * REVIEW, [[0.5]] * REVIEW, [[0.02]] * REVIEW:
        for _ in range(40):
            if depth.most(step).any():
                for drafts in each:
                    kept.append(depth.keep(np.arange(8), drafts_of([drafts] * 8)).sum().item())
    per_kind = [set(kept[i : i + REVIEW]) for i in range(0, len(kept), REVIEW)]
    assert {32} in per_kind and {8} in per_kind and per_kind[-1] == {0}
    assert per_kind.count({8}) >= 39, "tokens that pay were left out for a while"


def asked_in(depth: PricedDepth, step: Decoding, drafts: Drafts, steps: int, *, learns: bool = True) -> list[bool]:
    """In which of so many steps samples were asked for; all tokens that were kept come true, if it learns of it."""
    asked = []
    for _ in range(steps):
        most = depth.most(step)
        asked.append(bool(most.any()))
        if asked[-1]:
            counts = depth.keep(np.arange(len(step.ranks)), drafts)
            some = counts > 0
            if some.any() and learns:
                depth.learn(step.ranks[some], step.groups[some], counts[some], counts[some])
    return asked


def test_where_it_does_not_pay_samples_are_rarely_asked_for() -> None:
    dear = asked_in(PricedDepth(Flat(token=1e-2), ticking(0.0)), decoding(8), drafts_of([[0.9] * 4] * 8), 4000)
    assert sum(dear) < 150
    assert any(dear[3000:])  # it is tried again
    slow = asked_in(PricedDepth(Flat(), ticking(1.0)), decoding(8), drafts_of([[0.9] * 4] * 8), 4000)
    assert sum(slow) < 150  # asking takes longer than the steps
    cheap = asked_in(PricedDepth(Flat(), ticking(0.0)), decoding(8), drafts_of([[0.9] * 4] * 8), 400)
    assert all(cheap)


def test_a_drafter_that_knows_nothing_is_asked_now_and_then() -> None:
    asked = asked_in(PricedDepth(Flat(), ticking(0.0)), decoding(8), drafts_of([[]] * 8), 10 * (REST_LEAST + 1))
    assert sum(asked) == 10


def test_new_prices_change_the_choice() -> None:
    prices = Flat(token=1e-6)
    depth, step, drafts = PricedDepth(prices, ticking(0.0)), decoding(8), drafts_of([[0.9] * 8] * 8)
    assert all(asked_in(depth, step, drafts, 20, learns=False))
    prices.token, prices.changed = 1e-2, True
    assert not all(asked_in(depth, step, drafts, 60, learns=False))


def test_what_came_true_is_learned_for_samples_under_way() -> None:
    depth, drafts = PricedDepth(Flat(token=1e-9), ticking(0.0)), drafts_of([[0.9] * 4] * 4)
    first, second = decoding(4), decoding(4)
    second.ranks[:] += 1
    for _ in range(200):
        for step in (first, second):
            depth.most(step)
            depth.keep(np.arange(len(step.ranks)), drafts)
        for step in (first, second):  # a step is decided before the one before it is done
            depth.learn(step.ranks[1:], step.groups[1:], np.full(3, 4), np.array([2, 2, 2]))
    rates = np.exp(depth._acceptance._logs).reshape(-1, 16, 8)[0, 7]
    assert rates[1] > 0.95
    assert rates[2] < 0.05


def test_offers_are_counted_by_group() -> None:
    depth, step = PricedDepth(Flat(), ticking(0.0)), decoding(3)
    step.groups[:] = [0, 2, 2]
    depth.most(step)
    depth.keep(np.arange(len(step.ranks)), drafts_of([[0.99], [0.99, 0.99], []]))
    found = depth.bank()
    assert {group: offers.asked for group, offers in found.items()} == {0: 1.0, 2: 2.0}
    assert found[2].counts.sum() == 2
    assert depth.bank() == {}

"""How many proposed tokens a step checks: those that are worth their rows, by the price of the step.

EXSPEC (arXiv 2510.22876) has all samples check the same number of tokens; here each token has its chance of coming
true, learned as the job runs, and the most likely ones of all samples are checked, as many as give the most tokens per
second. Where that is none, no sample is asked for during a while.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, log

import numpy as np

from umbel.cost.draft_law import DraftLaw
from umbel.cost.drafts import LEAST_GAIN, LEVELS, Decodes, Offers, levels_of
from umbel.cost.live import Prices
from umbel.spec.acceptance import GROUPS, Acceptance
from umbel.spec.base import Decoding, Drafts, Floats, Ints

MOST = 16  # tokens proposed for a sample in a step
REVIEW = 4  # steps from one look at prices to the next
STEADY = 0.7  # of what was found before that stays in a review, so that nothing flips
TRIAL = 3  # reviews before it is judged whether asking pays
REST_LEAST, REST_MOST = 16, 512  # steps without asking after a trial in which it did not
NEVER = 1.5  # a chance that no token has
AT_FIRST = 0.5  # the least chance that is taken to pay, before prices are looked at
_CURVES = 512  # prices of steps kept


@dataclass(frozen=True, slots=True)
class Asked:
    """Tokens that were put on a step: those of sample `ranks[i]`, which ascend, are of
    `cases[begin[i]:begin[i + 1]]`."""

    ranks: Ints
    begin: Ints
    cases: Ints


class PricedDepth:
    """Chooses by `prices` of steps and by what it learns of acceptance; `clock` times what proposing itself takes."""

    def __init__(self, prices: Prices, clock: Callable[[], float] = time.perf_counter):
        self._offers: dict[int, Offers] = {}
        self._prices, self._clock = prices, clock
        self._acceptance = Acceptance()
        self._asked: deque[Asked] = deque(maxlen=2)  # of steps that may be under way
        self._curves: dict[tuple[int, int, int], tuple[Floats, Floats]] = {}
        self._decoding: Decoding | None = None
        self._began = 0.0
        self._own = 0.0  # seconds that proposing takes in a step, of late
        self._turn = 0  # steps since the last review, 0 where one is due
        self._worth = AT_FIRST  # the least chance that pays, of late
        self._gain, self._reviews = 0.0, 0  # logarithm of the gain in a step, of late; reviews since the last rest
        self._resting, self._rest = 0, REST_LEAST  # steps of this rest that are left, and of the next one

    def most(self, decoding: Decoding) -> Ints:
        """MOST for every sample, or none while that does not pay."""
        if self._resting:
            self._resting -= 1
            return np.zeros_like(decoding.ranks)
        self._decoding, self._began = decoding, self._clock()
        return np.full(len(decoding.ranks), MOST)

    def keep(self, which: Ints, drafts: Drafts) -> Ints:
        """How many of the first tokens of each of these samples' drafts are worth checking. Prices are looked at in one
        step of REVIEW."""
        decoding = self._decoding
        assert decoding is not None
        ranks = decoding.ranks[which]
        owner = np.repeat(np.arange(len(which)), drafts.begin[1:] - drafts.begin[:-1])
        cases = self._acceptance.cases(decoding.groups[which], decoding.places[which], owner, drafts)
        chances = self._acceptance.chances(cases, owner, drafts.begin)
        self._asked.append(Asked(ranks, drafts.begin, cases))
        review, self._turn = self._turn == 0, (self._turn + 1) % REVIEW
        if review:
            self._note(decoding.groups[which], owner, chances)
            self._reprice(decoding, chances)
        worth = chances >= self._worth
        if review:
            self._judge(decoding, chances[worth], offered=len(chances) > 0)
        return np.bincount(owner[worth], minlength=len(ranks))

    def learn(self, ranks: Ints, groups: Ints, drafted: Ints, accepted: Ints) -> None:
        """Of the tokens that were `drafted` for samples, the first `accepted` came true (`[samples]`)."""
        for asked in reversed(self._asked):
            at = np.minimum(asked.ranks.searchsorted(ranks), len(asked.ranks) - 1)
            here = asked.ranks[at] == ranks
            some = slice(None) if here.all() else here
            first, true = asked.begin[at[some]], accepted[some]
            self._acceptance.learn(asked.cases, first, np.minimum(true + 1, drafted[some]), true)
            if here.all():
                return
            ranks, drafted, accepted = ranks[~here], drafted[~here], accepted[~here]

    def bank(self) -> Mapping[int, Offers]:
        """What was proposed since the last time, by group of rows; GROUPS - 1 and all above are one."""
        found, self._offers = self._offers, {}
        return found

    def laws(self) -> Mapping[int, DraftLaw]:
        """Places are counted by `spec.measured`, for any rule."""
        return {}

    def _note(self, groups: Ints, owner: Ints, chances: Floats) -> None:
        """Count what is on offer, by group."""
        level, group = levels_of(chances), np.minimum(groups, GROUPS - 1)
        table = np.bincount(group[owner] * LEVELS + level, minlength=LEVELS * GROUPS).reshape(GROUPS, LEVELS)
        samples = np.bincount(group, minlength=GROUPS)
        for g in np.flatnonzero(samples).tolist():
            found = Offers(float(samples[g]), table[g].astype(float))
            self._offers[g] = self._offers[g].joined(found) if g in self._offers else found

    def _reprice(self, decoding: Decoding, chances: Floats) -> None:
        """Find the chance that a token must have to pay beside the best of these, which is above 1 where none can, and
        go a part of the way there."""
        if self._prices.renewed():
            self._curves.clear()
        step, falling = _step_of(decoding), np.sort(chances)[::-1]
        plain, more = self._cost(step, np.arange(len(chances) + 2.0))
        speed = (step.samples + np.append(0.0, np.cumsum(falling))) / (plain + more[:-1])
        best = int(speed.argmax())
        worth = min(float((more[best + 1] - more[best]) * speed[best]), NEVER)
        if best:
            worth = min(worth, float(falling[best - 1]))
        self._worth = worth if self._worth > 1 else STEADY * self._worth + (1 - STEADY) * worth

    def _judge(self, decoding: Decoding, chances: Floats, *, offered: bool) -> None:
        """Whether it pays to ask, with all that asking takes; rest where it has not of late."""
        step, own = _step_of(decoding), self._clock() - self._began
        self._own = min(own, STEADY * self._own + (1 - STEADY) * own) if self._own else own
        plain, more = self._cost(step, np.array([float(len(chances))]))
        gain = log((1 + chances.sum() / step.samples) * plain / (plain + more[0] + self._own))
        self._gain = STEADY * self._gain + (1 - STEADY) * gain if self._reviews else gain
        self._reviews += 1
        if self._gain > log(LEAST_GAIN):
            self._rest = REST_LEAST
        elif not len(chances):  # as nothing is known yet, or little
            self._pause(2 * REST_LEAST if offered else REST_LEAST)
        elif self._reviews >= TRIAL:
            self._pause(self._rest)
            self._rest = min(2 * self._rest, REST_MOST)

    def _pause(self, steps: int) -> None:
        """Ask for no sample in so many steps."""
        self._resting, self._reviews, self._turn = steps, 0, 0

    def _cost(self, step: Decodes, drafts: Floats) -> tuple[float, Floats]:
        """Seconds of the step without prompts and drafts, and what so many drafts add to the step."""
        key = (step.samples, step.others // 16, int(step.context) // 64)
        if key not in self._curves:
            if len(self._curves) >= _CURVES:
                self._curves.clear()
            grid = np.append(0.0, np.geomspace(1, max(step.samples * MOST, 2), 12))
            whole = self._prices.each(step.load(grid))
            alone = self._prices.each(Decodes(step.samples, step.context).load(np.zeros(1)))
            self._curves[key] = (np.append(alone, whole - whole[0]), grid)
        curve, grid = self._curves[key]
        return float(curve[0]), np.interp(drafts, grid, curve[1:], right=inf)


def _step_of(decoding: Decoding) -> Decodes:
    samples = len(decoding.ranks)
    return Decodes(samples, float(decoding.context.mean()), decoding.step_tokens - samples)

"""Measures a drafter for its law while another rule says how many tokens are checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from umbel.cost.draft_law import PLACES, DraftLaw
from umbel.cost.drafts import Offers
from umbel.spec.base import Decoding, Depth, Drafts, Floats, Ints

GROUPS = 64  # of rows that are told apart; all above are one
LOT = 64  # steps that are counted together


class Measured:
    """The rule `depth`, and a count by group of rows of what was checked and of what came true; `clock` times what
    proposing takes."""

    def __init__(self, depth: Depth, clock: Callable[[], float] = time.perf_counter):
        self.depth, self._clock = depth, clock
        self._groups = np.zeros(0, np.int64)  # of the samples that were asked for last
        self._began = 0.0
        self._clear()

    def _clear(self) -> None:
        self._rounds = self._seconds = 0.0
        self._asked = np.zeros(GROUPS)
        self._checked, self._tried, self._true = np.zeros((3, GROUPS, PLACES))
        # Steps that are not counted yet: groups, and how many tokens were checked; groups, drafted, accepted.
        self._proposed, self._came = list[tuple[Ints, ...]](), list[tuple[Ints, ...]]()

    def most(self, decoding: Decoding) -> Ints:
        """As the rule says."""
        most = self.depth.most(decoding)
        self._groups, self._began = decoding.groups, self._clock()
        return most

    def keep(self, which: Ints, drafts: Drafts) -> Ints:
        """As the rule says; what was proposed is counted."""
        self._seconds += self._clock() - self._began
        self._rounds += min(int(drafts.counts.max(initial=0)), PLACES)
        kept = self.depth.keep(which, drafts)
        self._proposed.append((self._groups[which], kept))
        if len(self._proposed) == LOT:
            self._count()
        return kept

    def learn(self, ranks: Ints, groups: Ints, drafted: Ints, accepted: Ints) -> None:
        """For the rule, and counted."""
        self.depth.learn(ranks, groups, drafted, accepted)
        self._came.append((groups, drafted, accepted))

    def bank(self) -> Mapping[int, Offers]:
        """As the rule has it."""
        return self.depth.bank()

    def laws(self) -> Mapping[int, DraftLaw]:
        """What was counted since the last time, by group; proposing took as long for all."""
        self._count()
        asked, whole = self._asked, max(self._asked.sum(), 1.0)
        parts = np.outer(asked / whole, [self._rounds, self._seconds]).tolist()
        counts = zip(asked.tolist(), self._checked, self._tried, self._true, parts, strict=True)
        found = {g: DraftLaw(n, *places, *part) for g, (n, *places, part) in enumerate(counts) if n}
        self._clear()
        return found

    def _count(self) -> None:
        """Count the steps that are not counted yet."""
        if self._proposed:
            groups, kept = (np.concatenate(part) for part in zip(*self._proposed, strict=True))
            self._asked += np.bincount(np.minimum(groups, GROUPS - 1), minlength=GROUPS)
            self._checked += _reached(groups, kept)
        if self._came:
            groups, drafted, accepted = (np.concatenate(part) for part in zip(*self._came, strict=True))
            self._tried += _reached(groups, np.minimum(accepted + 1, drafted))
            self._true += _reached(groups, accepted)
        self._proposed, self._came = [], []


def _reached(groups: Ints, counts: Ints) -> Floats:
    """How many samples of each group have a token at each place, of which they have the first `counts`
    (`[GROUPS, PLACES]`)."""
    cells = np.minimum(groups, GROUPS - 1) * (PLACES + 1) + np.minimum(counts, PLACES)
    ends = np.bincount(cells, minlength=GROUPS * (PLACES + 1)).reshape(GROUPS, PLACES + 1)
    return np.asarray(ends[:, ::-1].cumsum(1)[:, ::-1][:, 1:], float)

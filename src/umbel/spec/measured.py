"""Measures a drafter for its law while another rule says how many tokens are checked."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

from umbel.cost.draft_law import PLACES, DraftLaw
from umbel.cost.drafts import Offers
from umbel.spec.base import Decoding, Depth, Drafts, Ints

GROUPS = 64  # of rows that are told apart; all above are one
COUNTS = ("asked", "checked", "tried", "true")


class Measured:
    """The rule `depth`, and a count by group of rows of what was checked and of what came true; `clock` times what
    proposing takes."""

    def __init__(self, depth: Depth, clock: Callable[[], float] = time.perf_counter):
        self.depth, self._clock = depth, clock
        self._counts = np.zeros((len(COUNTS), GROUPS, PLACES))
        self._rounds = self._seconds = self._began = 0.0
        self._decoding: deque[tuple[Ints, Ints]] = deque(maxlen=2)  # ranks and groups of steps that may be under way

    def most(self, decoding: Decoding) -> Ints:
        """As the rule says."""
        most = self.depth.most(decoding)
        if most.any():
            self._decoding.append((decoding.ranks, np.minimum(decoding.groups, GROUPS - 1)))
            self._began = self._clock()
        return most

    def keep(self, ranks: Ints, drafts: Drafts) -> Ints:
        """As the rule says; what was proposed is counted."""
        self._seconds += self._clock() - self._began
        counts = np.minimum(drafts.counts, PLACES)
        self._rounds += int(counts.max(initial=0))
        groups = _groups_of(ranks, *self._decoding[-1])
        self._counts[0, :, 0] += np.bincount(groups, minlength=GROUPS)
        kept = self.depth.keep(ranks, drafts)
        self._add("checked", groups, np.minimum(kept, PLACES))
        return kept

    def learn(self, ranks: Ints, drafted: Ints, accepted: Ints) -> None:
        """For the rule, and counted."""
        self.depth.learn(ranks, drafted, accepted)
        for known, groups in reversed(self._decoding):
            here = np.isin(ranks, known)
            of = _groups_of(ranks[here], known, groups)
            self._add("tried", of, np.minimum(np.minimum(accepted[here] + 1, drafted[here]), PLACES))
            self._add("true", of, np.minimum(accepted[here], PLACES))
            ranks, drafted, accepted = ranks[~here], drafted[~here], accepted[~here]

    def bank(self) -> Mapping[int, Offers]:
        """As the rule has it."""
        return self.depth.bank()

    def laws(self) -> Mapping[int, DraftLaw]:
        """What was counted since the last time, by group; proposing took as long for all."""
        counts, rounds, seconds = self._counts, self._rounds, self._seconds
        self._counts, self._rounds, self._seconds = np.zeros_like(counts), 0.0, 0.0
        asked, whole = counts[0, :, 0], max(counts[0].sum(), 1.0)
        found = np.flatnonzero(asked).tolist()
        return {
            g: DraftLaw(float(asked[g]), *counts[1:, g], *(asked[g] / whole * np.array([rounds, seconds])))
            for g in found
        }

    def _add(self, name: str, groups: Ints, counts: Ints) -> None:
        """The first `counts` places of each sample count one."""
        reached = np.arange(PLACES) < counts[:, None]
        np.add.at(self._counts[COUNTS.index(name)], groups, reached)


def _groups_of(some: Ints, ranks: Ints, groups: Ints) -> Ints:
    """The groups of some of these ranks."""
    order = np.argsort(ranks)
    return groups[order[np.searchsorted(ranks, some, sorter=order)]]

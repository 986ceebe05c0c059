"""Reads many length curves at once: which of the running samples have not ended after so many more tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cost.lengths import ENOUGH, LEAN, LengthBook, LengthCurve

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

UNKNOWN = 1024  # tokens that an answer may take beyond the longest seen; then twice its own length
OVERFLOW = 0.01  # probability of needing more pages than there are that admission accepts
ENDLESS = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Survival:
    """The length curves of some groups as a table, with running samples counted as "at least so long".

    `share`: `[groups, lengths]`, the share of answers longer than n tokens (the last column: longer than all seen).
    `last`: `[groups]`, the length that no answer exceeds (ENDLESS: some always do).
    `longest`: `[groups]`, the longest seen.
    `answers`: `[groups]`, how many answers it rests on.
    `groups`: the numbers of the groups, ascending.
    """

    share: Floats
    last: Ints
    longest: Ints
    answers: Floats
    groups: Ints

    @classmethod
    def of(cls, book: LengthBook, groups: Ints, group_of: Ints, produced: Ints) -> Survival:
        """The table of `groups` (ascending); running samples are of `group_of` and have `produced` so many tokens."""
        everyone = book.everyone()
        curves = [*(book.own(g) for g in groups.tolist()), everyone]
        width = 2 + max([int(produced.max(initial=0)), *(int(c.lengths[-1]) for c in curves if len(c.lengths))])
        ended, stopped = (
            _dense([c.counts for c in curves], curves, width),
            _dense([c.stopped for c in curves], curves, width),
        )
        answers = ended.sum(1) + stopped.sum(1)
        at = np.searchsorted(groups, group_of) * width + produced
        going = np.bincount(at, minlength=len(groups) * width).reshape(-1, width)
        known = ended + stopped + np.concatenate([going, going.sum(0, keepdims=True)])
        lean = LEAN / max(float(known[-1].sum()), LEAN)
        known, ended = known[:-1] + lean * known[-1], ended[:-1] + lean * ended[-1]
        at_risk = np.cumsum(known[:, ::-1], axis=1)[:, ::-1]
        if answers[-1] < ENOUGH:
            at_risk = at_risk + 1.0  # one answer that never ends
        share = np.cumprod(1.0 - ended / np.maximum(at_risk, 1e-300), axis=1)
        share[share < 1e-9] = 0.0
        return cls(
            share=share,
            last=np.where(share[:, -1] > 0, ENDLESS, (share > 0).sum(1)),
            longest=np.where(known.any(1), width - 1 - np.argmax(known[:, ::-1] > 0, axis=1), 0),
            answers=np.maximum(answers[:-1] + LEAN * min(1.0, answers[-1] / LEAN), 1.0),
            groups=groups,
        )

    def find(self, groups: Ints) -> Ints | None:
        """The places of groups in the table; None when one is missing."""
        at = np.minimum(np.searchsorted(self.groups, groups), len(self.groups) - 1)
        return at if (self.groups[at] == groups).all() else None

    def bound(self, at: Ints, produced: Ints, limit: Ints) -> Ints:
        """The longest that samples are expected to get (`[samples]`; `at` is their place in the table).

        That is the length which no answer of their group has exceeded. Where there is none, or they exceed it already,
        it is more than any answer seen, but at most twice their own length or UNKNOWN tokens.
        """
        last = self.last[at]
        outlived = produced >= last
        new = np.maximum(2 * produced + 1, np.where(outlived, 0, np.maximum(UNKNOWN, self.longest[at] + 1)))
        return np.minimum(np.where(outlived | (last == ENDLESS), new, last), limit)


def _dense(values: list[Floats], curves: list[LengthCurve], width: int) -> Floats:
    """The curves as a matrix: one row a curve, one column a length."""
    table = np.zeros((len(curves), width))
    for row, (value, curve) in enumerate(zip(values, curves, strict=True)):
        table[row, curve.lengths] = value
    return table

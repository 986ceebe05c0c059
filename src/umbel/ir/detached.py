"""Runs of a step that are computed as if nothing stood before them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from umbel.ir.step import Step
from umbel.ir.sums import RowRanges

Ints = NDArray[np.int64]


def set_apart(step: Step, apart: Ints) -> Step:
    """The step with the rows of nodes that are `apart` (1; `[nodes]`) in trees of their own behind all others, where
    positions begin with 0. What other rows read of such a node stays where it was: its KV lies in the same pages.

        node      0 (shared)   1 (document)   2 (question)          0 (shared)   2 (tip)   1 (document, a root)
        rows      [0, 5)       [5, 9)         -                     [0, 5)       ...       [n - 4, n), at 0 to 4

    No row of such a node is scored or summed, and no step with one passes some of its layers only.
    """
    own = step.row_end - step.row_begin
    which = np.flatnonzero((apart > 0) & (own > 0))
    if not len(which):
        return step
    leaves = np.zeros(len(own), bool)
    leaves[which] = True
    gone = np.repeat(leaves, own)
    order = np.concatenate([np.flatnonzero(~gone), np.flatnonzero(gone)])
    reach = np.append(0, np.cumsum(~gone))  # rows before each that stay
    some = reach[step.below_end] > reach[step.row_begin]
    node = np.concatenate([np.flatnonzero(some), which])
    parent, place = step.parent[some], np.cumsum(some) - 1
    first = reach[-1] + np.append(0, np.cumsum(own[which]))
    roots = np.zeros(len(which), np.int64)
    begin = np.repeat(step.start[which], own[which])
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))

    def joined(kept: Ints, new: Ints) -> Ints:
        return np.concatenate([kept, new])

    return replace(
        step,
        tokens=step.tokens[order],
        positions=joined(step.positions[~gone], step.positions[gone] - begin),
        fresh=step.fresh[order],
        parent=joined(np.where(parent < 0, -1, place[parent]), roots - 1),
        start=joined(step.start[some], roots),
        end=joined(step.end[some], step.end[which] - step.start[which]),
        row_begin=joined(reach[step.row_begin[some]], first[:-1]),
        row_end=joined(reach[step.row_end[some]], first[1:]),
        below_end=joined(reach[step.below_end[some]], first[1:]),
        page_begin=step.page_begin[node],
        sampling=replace(step.sampling, at=rank[step.sampling.at]),
        scores=None if step.scores is None else replace(step.scores, at=rank[step.scores.at]),
        sums=None if step.sums is None else RowRanges(reach[step.sums.begin], reach[step.sums.end]),
        scope=None if step.scope is None else step.scope[node],
        answers=None if step.answers is None else step.answers[node],
    )

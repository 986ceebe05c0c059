"""A step without some of its rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from umbel.ir.step import Step

Ints = NDArray[np.int64]


def other_rows(step: Step) -> Ints:
    """The rows of a step that are not of its layer group, ascending."""
    keep = np.ones(step.n_rows, bool)
    if step.group is not None:
        keep[step.group.rows] = False
    return np.flatnonzero(keep)


def only_rows(step: Step, rows: Ints) -> Step:
    """The step of some of its rows (ascending), with the nodes that these read. Draws must be from these rows, and none
    may be scored or summed."""
    kept = np.zeros(step.n_rows, np.int64)
    kept[rows] = 1
    reach = np.append(0, np.cumsum(kept))
    some = reach[step.below_end] > reach[step.row_begin]
    place = np.cumsum(some) - 1
    parent = step.parent[some]
    return replace(
        step,
        tokens=step.tokens[rows],
        positions=step.positions[rows],
        fresh=step.fresh[rows],
        parent=np.where(parent < 0, -1, place[parent]),
        start=step.start[some],
        end=step.end[some],
        row_begin=reach[step.row_begin[some]],
        row_end=reach[step.row_end[some]],
        below_end=reach[step.below_end[some]],
        page_begin=step.page_begin[some],
        sampling=replace(step.sampling, at=reach[step.sampling.at]),
        scope=None if step.scope is None else step.scope[some],
        answers=None if step.answers is None else step.answers[some],
        whole=None if step.whole is None else step.whole[some],
        group=None,
    )

"""Where the rows of a step find the state before them, and where they leave theirs; numpy only.

A page of the KV pool holds, beside keys and values, the state at the last of its positions that is computed. So a state
is where a run ends, wherever a chunk does, and at every edge of pages: what is forked, split, evicted and read again
finds it as it finds keys. Of a convolution, a page holds the inputs at the last `taps` positions that it has, position
`offset` in the place `page * taps + offset % taps`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.step import Step
from umbel.kv.slots import row_nodes

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StateRows:
    """The inputs of a convolution that the rows of a step read and leave.

    `old` (`[k]`): places of inputs that are read. `before` (`[taps - 1, rows]`): which input each row has so many
    tokens back, one first, counting: 0, a row of zeros; then those at `old`; then the rows of the step. `left` (`[m]`):
    rows whose inputs are kept, in the places `kept`.
    """

    old: Ints
    before: Ints
    left: Ints
    kept: Ints

    @classmethod
    def of(cls, step: Step, taps: int) -> StateRows:
        """What the rows of a step read and leave. Rows that are not fresh leave nothing."""
        node, rows = row_nodes(step), np.arange(step.n_rows)
        back = rows - np.arange(1, taps)[:, None]
        inside = back >= step.row_begin[node]
        lag, row = np.nonzero(~inside & (step.positions > np.arange(taps - 1)[:, None]))
        found, old = _before(step, node[row], step.positions[row] - lag - 1, taps)
        before = np.where(inside, 1 + len(old) + back, 0)
        before[lag, row] = found
        return cls(old, before, *_left(step, node, taps))


def _before(step: Step, node: Ints, positions: Ints, taps: int) -> tuple[Ints, Ints]:
    """Which inputs stand at positions on the paths of nodes (`[items]`), and the places of those that are kept."""
    first = step.end - (step.row_end - step.row_begin)  # the position of a node's first row
    at = node.copy()
    while (above := positions < step.start[at]).any():
        at = np.where(above, step.parent[at], at)
    computed = positions >= first[at]
    kept = ~computed
    old = _places(step, at[kept], positions[kept] - step.start[at[kept]], taps)
    found = np.empty(len(node), np.int64)
    found[kept] = 1 + np.arange(len(old))
    found[computed] = 1 + len(old) + (step.row_begin[at] + positions - first[at])[computed]
    return found, old


def _left(step: Step, node: Ints, taps: int) -> tuple[Ints, Ints]:
    """Rows that are among the last `taps` of their page once the step has run, and the places of their inputs."""
    offset, rows = step.positions - step.start[node], np.arange(step.n_rows)
    last = np.minimum(step.row_end[node] - 1, rows + step.page_size - 1 - offset % step.page_size)
    left = np.flatnonzero(step.fresh & (rows + taps > last))
    return left, _places(step, node[left], offset[left], taps)


def _places(step: Step, node: Ints, offset: Ints, taps: int) -> Ints:
    """Where the inputs at some offsets from the starts of nodes are kept."""
    page, inner = offset // step.page_size, offset % step.page_size
    return step.pages[step.page_begin[node] + page] * taps + inner % taps


@dataclass(frozen=True, slots=True)
class StateChain:
    """From which page's state the rows of a step go on, and in which page they leave theirs (`[rows]`).

    `source`: -1 for a row that begins with nothing; `target`: -1 for a row that is not fresh, which reads the state
    that its own token left. A row may come only behind those on its path: as rows stand, or in waves, of which
    `order` has the rows one wave after the other, and `ends` where each ends.
    """

    source: Ints
    target: Ints
    order: Ints
    ends: Ints

    @classmethod
    def of(cls, step: Step) -> StateChain:
        """How the rows of a step follow each other."""
        node = row_nodes(step)
        last, at = step.positions - step.fresh, node.copy()
        while (above := (last < step.start[at]) & (last >= 0)).any():
            at = np.where(above, step.parent[at], at)
        source = np.where(last < 0, -1, _pages(step, at, np.maximum(last, 0)))
        target = np.where(step.fresh, _pages(step, node, step.positions), -1)
        wave = _waves(step)[node] + np.arange(step.n_rows) - step.row_begin[node]
        return cls(source, target, np.argsort(wave, kind="stable"), np.cumsum(np.bincount(wave)))


def _pages(step: Step, node: Ints, positions: Ints) -> Ints:
    """The pages in which nodes have positions."""
    return step.pages[step.page_begin[node] + (positions - step.start[node]) // step.page_size]


def _waves(step: Step) -> Ints:
    """The wave in which each node's first row can come: behind the last row that its parent has in the step."""
    rows, waves = (step.row_end - step.row_begin).tolist(), [0] * len(step.parent)
    fresh = np.append(step.fresh, False)[step.row_begin].tolist()
    for node, parent in enumerate(step.parent.tolist()):
        if parent >= 0 and rows[parent] and fresh[parent]:
            waves[node] = waves[parent] + rows[parent]
    return np.array(waves, np.int64)

"""The forest that a walk in bundles follows: nodes whose samples all lie in one bundle become one node of it.

Of a million prompts nearly all nodes are of that kind, so that a walk follows the shared runs and one more node for
each bundle below each of them, not every prompt's own node.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest
from umbel.plan.forest.regroup import nearest_of
from umbel.plan.walk.samples import WalkSamples

Ints = NDArray[np.int64]


def bundle(forest: Forest, rows: WalkSamples, page_size: int) -> tuple[Forest, WalkSamples]:
    """The nodes that a walk of `rows` follows, and the rows on them; unchanged where rows are single or out of order.

    The forest is valid only for what a walk reads: parents, and lengths in whole pages. A bundle has one entry of
    `leaf` for each shared run that it hangs from.
    """
    n, leaf = forest.n_nodes, rows.leaf
    if len(rows.tokens) == len(leaf) or (leaf[1:] < leaf[:-1]).any():
        return forest, rows
    entry = np.repeat(np.arange(len(rows.tokens)), np.diff(rows.first))
    begin, stop = np.searchsorted(leaf, np.arange(n)), np.searchsorted(leaf, forest.subtree_end)
    needed = np.flatnonzero(stop > begin)
    spans = np.zeros(n, bool)
    spans[needed] = entry[begin[needed]] != entry[stop[needed] - 1]
    nearest = nearest_of(forest, spans)
    inside = needed[~spans[needed]]
    hang, which = np.unique(entry * (n + 1) + nearest[leaf] + 1, return_inverse=True)
    place = which[begin[inside]]  # of each node inside a bundle: all its samples hang alike
    pages = np.bincount(place, -(-(forest.end - forest.start)[inside] // page_size), len(hang)).astype(np.int64)
    cells = np.bincount(place, rows.node_cells[inside], len(hang)).astype(np.int64)
    shared = np.flatnonzero(spans)
    number = np.append(np.cumsum(spans) - 1, -1)  # parent -1 finds the last entry
    parent = np.concatenate([number[forest.parent[shared]], number[hang % (n + 1) - 1]])
    start, end = (np.concatenate([values[shared], more]) for values, more in _spans(forest, pages * page_size))
    nodes = np.arange(len(parent))
    followed = Forest(parent, start, end, nodes, np.full_like(nodes, len(nodes)), nodes, nodes, nodes)
    return followed, replace(
        rows,
        first=np.searchsorted(hang // (n + 1), np.arange(len(rows.tokens) + 1)),
        leaf=len(shared) + np.arange(len(hang)),
        node_cells=np.concatenate([rows.node_cells[shared], cells]),
    )


def _spans(forest: Forest, length: Ints) -> tuple[tuple[Ints, Ints], tuple[Ints, Ints]]:
    """Starts and ends of nodes, each with those of bundles that are `length` tokens long."""
    return (forest.start, np.zeros_like(length)), (forest.end, length)

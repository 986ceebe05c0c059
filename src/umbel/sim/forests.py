"""Forests as other engines see them: shared in whole KV blocks only, and evicted a piece at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest

Ints = NDArray[np.int64]


def whole_blocks(forest: Forest, block: int) -> Forest:
    """The forest in which only whole blocks of `block` tokens are shared, as block-hashing prefix caches do.

    A shared run is cut at a block's edge, and each branch gets the rest as its own. A prompt that ends inside a shared
    block has a node of its own for that block. Rows keep their order.
    """
    shared = forest.rows_below > 1
    end = np.where(shared, forest.end // block * block, forest.end)
    start = np.where(forest.parent < 0, 0, end[forest.parent])
    stays = end > start
    above = _nearest(forest.parent, stays)
    ends = forest.leaf[forest.order]
    own = forest.order[shared[ends] & (forest.end[ends] % block > 0)]  # rows that end inside a shared block
    old = np.flatnonzero(stays)
    # A row's own block stands right behind the node that it was cut from, before that node's branches.
    keys = np.concatenate([2 * old, 2 * forest.leaf[own] + 1])
    turn = np.argsort(keys, kind="stable")
    keys = keys[turn]
    number = np.empty(len(keys), np.int64)
    number[turn] = np.arange(len(keys))
    named = np.full(forest.n_nodes + 1, -1)
    named[old] = number[: len(old)]
    of_row = number[len(old) :]
    upper = np.concatenate([above[forest.parent[old]], above[forest.leaf[own]]])
    subtree_end = np.searchsorted(keys, 2 * forest.subtree_end[old])
    leaf = named[forest.leaf]
    leaf[own] = of_row
    first = np.maximum(end[forest.leaf[own]], 0)
    return Forest(
        parent=named[upper][turn],
        start=np.concatenate([start[old], first])[turn],
        end=np.concatenate([end[old], forest.end[forest.leaf[own]]])[turn],
        source=np.concatenate([forest.source[old], own])[turn],
        subtree_end=np.concatenate([subtree_end, of_row + 1])[turn],
        rows_below=np.concatenate([forest.rows_below[old], np.ones_like(own)])[turn],
        leaf=leaf,
        order=forest.order,
    )


def in_pieces(forest: Forest, size: int) -> Forest:
    """The forest with every shared run cut into pieces of at most `size` tokens, which a cache evicts one by one."""
    length = forest.end - forest.start
    count = np.where(forest.rows_below > 1, -(-length // size), 1)
    first = np.concatenate([[0], np.cumsum(count)])
    last = first[1:] - 1
    node = np.repeat(np.arange(forest.n_nodes), count)
    within = np.arange(len(node)) - first[node]
    start = forest.start[node] + within * size
    above = forest.parent[node]
    return Forest(
        parent=np.where(within > 0, np.arange(len(node)) - 1, np.where(above < 0, -1, last[above])),
        start=start,
        end=np.where(np.arange(len(node)) == last[node], forest.end[node], start + size),
        source=forest.source[node],
        subtree_end=first[forest.subtree_end[node]],
        rows_below=forest.rows_below[node],
        leaf=last[forest.leaf],
        order=forest.order,
    )


def _nearest(parent: Ints, stays: NDArray[np.bool_]) -> Ints:
    """Per node the nearest one that stays, itself or above, -1 where there is none; the last entry is that of -1."""
    nodes = np.arange(len(parent))
    jump = np.append(np.where(stays, nodes, parent), -1)
    while (jump != (further := jump[jump])).any():
        jump = further
    return jump

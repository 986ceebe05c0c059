"""Turns a choice of shared runs into the forest that runs: opened nodes, and the rest of each prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Grouping:
    """The nodes of a full forest that are shared runs.

    `opened`: `[nodes]`, whether it is one.
    `depth`: `[nodes]`, the position up to which it is shared.
    `private`: each run begins at the prompt's first token and holds a copy of the runs above (one level of sharing);
        otherwise it begins where the nearest opened run above it ends.
    """

    opened: Bools
    depth: Ints
    private: bool = False


@dataclass(frozen=True, slots=True)
class SharedRuns:
    """The runs of a grouping.

    `group`, `group_start`: nodes of the full forest that are shared, and where their runs begin; each ends at its
        `depth`.
    `tail`, `tail_start`: nodes where prompts end, and where the part begins that those have alone. Prompts that end
        where an opened run does have none.
    `group_above`, `tail_above`: the opened node that they continue (-1: none).
    """

    group: Ints
    group_start: Ints
    group_above: Ints
    tail: Ints
    tail_start: Ints
    tail_above: Ints


def runs_of(forest: Forest, grouping: Grouping) -> SharedRuns:
    """The runs of a grouping of `forest`."""
    opened, depth = grouping.opened, grouping.depth
    nearest = nearest_of(forest, opened)
    group = np.flatnonzero(opened)
    parent = forest.parent[group]
    above = np.where(parent >= 0, nearest[parent], -1)
    if grouping.private:
        above = np.full_like(group, -1)
    ends = np.bincount(forest.leaf, minlength=forest.n_nodes) > 0
    tail = np.flatnonzero(ends & ~(opened & (depth == forest.end)))
    beside = nearest[tail]

    def end_of(nodes: Ints) -> Ints:
        return np.asarray(np.where(nodes >= 0, depth[nodes], 0))

    return SharedRuns(group, end_of(above), above, tail, end_of(beside), beside)


def regroup(forest: Forest, grouping: Grouping) -> Forest:
    """The forest of a grouping: same prompts, other runs. Time linear in nodes and rows, except for sorting."""
    runs = runs_of(forest, grouping)
    n_groups = len(runs.group)
    node = np.concatenate([runs.group, runs.tail])
    above = np.concatenate([runs.group_above, runs.tail_above])
    is_tail = np.arange(len(node)) >= n_groups
    root = node
    if grouping.private:
        root = np.where(above >= 0, above, node)
    turn = np.lexsort((node, is_tail, root)) if grouping.private else np.lexsort((is_tail, node))
    number = np.empty_like(turn)
    number[turn] = np.arange(len(turn))
    number_of_group = np.full(forest.n_nodes + 1, -1)
    number_of_group[runs.group] = number[:n_groups]
    number_of_leaf = number_of_group[:-1].copy()
    number_of_leaf[runs.tail] = number[n_groups:]
    leaf = number_of_leaf[forest.leaf]
    if grouping.private:
        after = np.searchsorted(root[turn], root, side="right")
    else:
        after = np.searchsorted(node[turn], forest.subtree_end[node])
    subtree_end = np.where(is_tail, number + 1, after)[turn]
    begin = np.concatenate([runs.group_start, runs.tail_start])
    end = np.concatenate([grouping.depth[runs.group], forest.end[runs.tail]])
    return Forest(
        parent=number_of_group[above][turn],  # -1 finds the last entry
        start=begin[turn],
        end=end[turn],
        source=forest.source[node][turn],
        subtree_end=subtree_end,
        rows_below=rows_below(leaf[forest.order], subtree_end),
        leaf=leaf,
        order=forest.order[np.argsort(leaf[forest.order], kind="stable")],
    )


def rows_below(leaves: Ints, subtree_end: Ints) -> Ints:
    """How many of `leaves` (one a row) lie in the subtree of each node (`[nodes]`)."""
    return sum_below(np.bincount(leaves, minlength=len(subtree_end)), subtree_end)


def sum_below(values: NDArray[np.int64], subtree_end: Ints) -> Ints:
    """The sum of `values` (`[nodes]`) over the subtree of each node; subtrees are ranges, so running sums give it."""
    total = np.concatenate([[0], np.cumsum(values)])
    return np.asarray(total[subtree_end] - total[:-1])


def nearest_of(forest: Forest, opened: Bools) -> Ints:
    """The nearest opened node on the path of each node (itself, or -1 if none); jumps double, so depth does not
    matter."""
    n = forest.n_nodes
    jump = np.append(np.where(opened, np.arange(n), np.where(forest.parent < 0, n, forest.parent)), n)
    while True:
        further = jump[jump]
        if np.array_equal(further, jump):
            return np.where(jump[:n] == n, -1, jump[:n])
        jump = further

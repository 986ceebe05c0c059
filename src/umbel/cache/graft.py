"""Adds the forest of arriving prompts to the KV tree: beside what is there, or below the beginnings that it has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cache.branches import split
from umbel.cache.run_index import RunIndex
from umbel.cache.tree import KVTree
from umbel.ir.distinct import Distinct
from umbel.ir.forest import Forest
from umbel.ir.workload import ADAPTER, Workload

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the nodes of a forest go (`[nodes]`): `node` of the tree has all their tokens already, or -1. Where it is
    new and its parent is not, `above` is the node to hang it from (-1: a root), which has its first `skip` tokens."""

    node: Ints
    above: Ints
    skip: Ints

    @classmethod
    def new(cls, n_nodes: int) -> Places:
        """Nothing of the forest is there."""
        return cls(np.full(n_nodes, -1), np.full(n_nodes, -1), np.zeros(n_nodes, np.int64))


def graft(
    tree: KVTree, workload: Workload, forest: Forest, samples_per_row: Ints, means: NDArray[np.bool_] | None = None
) -> None:
    """Add a forest of prompts, whose rows are numbered on from those that are there.

    `samples_per_row` (`[rows]`) is 0 for rows that will not run; what only they have is left out. Beginnings are looked
    up where the tree has an index, except of prompts that are scored, or whose states are summed (`means`, `[rows]`):
    neither logits nor states are kept, so that they have to be computed; nor are these found later, as all that they
    hang from is known only now.
    """
    places, apart = Places.new(forest.n_nodes), np.zeros(forest.n_nodes, bool)
    if tree.index is not None:
        apart = _with_scores(workload, forest, means)
        places = _find(tree, tree.index, workload, forest, apart)
    below = _sum_below(forest, samples_per_row)
    new = np.flatnonzero((places.node < 0) & (below > 0))
    nodes = places.node[new] = tree.numbers(len(new))
    up = forest.parent[new]
    tops = (up < 0) | (places.above[new] >= 0)
    above = places.above[new[tops]]
    start = forest.start[new] + places.skip[new]
    tree.parent[nodes] = np.where(tops, places.above[new], places.node[up])
    tree.start[nodes], tree.length[nodes] = start, forest.end[new] - start
    tree.held[nodes] = tree.seen[nodes] = 0
    tree.slot[nodes], tree.drawn[nodes] = -1, 0
    tree.scope[nodes] = 0 if workload.scope is None else workload.scope[forest.source[new]]
    tree.is_scoped = tree.is_scoped or bool((tree.scope[nodes] & ADAPTER).any())
    at = workload.offsets[forest.source[new]] + start
    tree.tokens.read(nodes, workload.tokens, at, workload.documents)
    _label(tree, nodes, np.searchsorted(new, forest.subtree_end[new]), np.flatnonzero(tops), above)
    for node, count in zip(nodes.tolist(), below[new].tolist(), strict=True):
        tree.waiting[node] = count
    known = ~np.isin(forest.leaf, new)
    _expect(tree, above, below[new[tops]])
    _expect(tree, places.node[forest.leaf[known]], samples_per_row[known])
    if tree.apart is not None:
        tree.apart.join(len(tree.leaf), workload)
    tree.add_rows(len(forest.leaf), places.node[forest.leaf])
    if tree.index is not None:
        for node in nodes[~apart[new]].tolist():
            tree.index.add(node)


def _with_scores(workload: Workload, forest: Forest, means: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """The nodes of all trees of the forest in which a row's prompt is scored or summed (`[nodes]`)."""
    number = np.cumsum(forest.parent < 0) - 1  # of the tree that a node is in
    asked = Distinct.of(workload.params).flags(lambda p: p.prompt_logprobs is not None)
    asked = asked if means is None else asked | means
    some = np.zeros(forest.n_nodes, bool)
    some[number[forest.leaf[asked]]] = True
    return np.asarray(some[number])


def _find(tree: KVTree, index: RunIndex, workload: Workload, forest: Forest, apart: NDArray[np.bool_]) -> Places:
    """Look up each node whose parent is in the tree with all its tokens, except those that stay `apart` (`[nodes]`).

    A run that the rows of the forest share is theirs as far as it is not there: where it ends within a page of the
    tree, what they have below it is not looked up.
    """
    places, node = Places.new(forest.n_nodes), 0
    while node < forest.n_nodes:
        if apart[node]:
            node = int(forest.subtree_end[node])
            continue
        up = int(forest.parent[node])
        row = int(forest.source[node])
        tokens = workload.prompt(row)[forest.start[node] : forest.end[node]]
        scope = 0 if workload.scope is None else int(workload.scope[row])
        found = index.find(tokens, -1 if up < 0 else int(places.node[up]), scope)
        spot, length = _make_fork(tree, found.node, found.matched, found.length)
        if length == len(tokens):
            places.node[node] = spot
            node += 1
        else:
            places.above[node], places.skip[node] = spot, length
            node = int(forest.subtree_end[node])
    return places


def _make_fork(tree: KVTree, node: int, matched: int, length: int) -> tuple[int, int]:
    """Something is to hang below the first `matched` tokens of a node, where a prompt has `length` tokens: which node
    ends there, or at the edge of a page before, and how many tokens the prompt has there."""
    if node < 0 or matched == tree.length.item(node):
        return node, length
    at = matched - matched % tree.pool.page_size if tree.n_pages.item(node) else matched
    upper = split(tree, node, at) if at else tree.parent.item(node)
    return upper, length - (matched - at)


def _label(tree: KVTree, nodes: Ints, end: Ints, tops: Ints, above: Ints) -> None:
    """Put new nodes in order: depth-first as they are, each with its subtree up to `end`. Those at `tops` hang from the
    nodes `above`; subtrees that hang from the same node and stand side by side are labelled at once."""
    apart = (above[1:] != above[:-1]) | (tops[1:] != end[tops[:-1]])
    last = np.flatnonzero(np.append(apart, np.ones(min(len(tops), 1), bool)))
    first = np.append(0, last[:-1] + 1)[: len(last)]
    for i, j in zip(first.tolist(), last.tolist(), strict=True):
        at = slice(int(tops[i]), int(end[tops[j]]))
        tree.labels.plant(nodes[at], end[at] - at.start, int(above[i]))


def _expect(tree: KVTree, nodes: Ints, counts: Ints) -> None:
    """So many more samples are to come below nodes (-1: below none) that were there before."""
    some = (nodes >= 0) & (counts > 0)
    for node, count in zip(nodes[some].tolist(), counts[some].tolist(), strict=True):
        for each in tree.path(node):
            tree.waiting[each] += count


def _sum_below(forest: Forest, per_row: Ints) -> Ints:
    """Sum a figure of the rows over each node's subtree (`[nodes]`); subtrees are ranges, so prefix sums do it."""
    at_leaf = np.zeros(forest.n_nodes + 1, np.int64)
    np.add.at(at_leaf, forest.leaf + 1, per_row)
    total = np.cumsum(at_leaf)
    return total[forest.subtree_end] - total[:-1]

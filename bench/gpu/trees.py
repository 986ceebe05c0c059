"""Steps made by hand: rows that decode, prompts that begin, behind any tree of shared runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from umbel.ir.step import Sampling, Step

PAGE = 16


@dataclass(frozen=True, slots=True)
class Node:
    """A run of `tokens` below node `parent` (-1: a root); the last `new` of them are computed in the step."""

    parent: int
    tokens: int
    new: int = 0


def tree(levels: Sequence[tuple[int, int]], own: int, new: int = 1) -> list[Node]:
    """Nodes depth first: per level (children of each node, tokens of each), and the last level's children are leaves of
    `own` tokens, whose last `new` are computed."""
    found: list[Node] = []

    def grow(parent: int, depth: int) -> None:
        children, tokens = levels[depth]
        is_leaf = depth == len(levels) - 1
        for _ in range(children):
            found.append(Node(parent, own, new) if is_leaf else Node(parent, tokens))
            if not is_leaf:
                grow(len(found) - 1, depth + 1)

    grow(-1, 0)
    return found


def decodes(rows: int, shared: int, own: int) -> list[Node]:
    """Rows that decode behind one shared run (none where `shared` is 0), each with `own` tokens of its own."""
    return tree([(1, shared), (rows, 0)] if shared else [(rows, 0)], own)


def prompts(count: int, tokens: int) -> list[Node]:
    """Whole prompts that share nothing, computed in the step."""
    return [Node(-1, tokens, tokens) for _ in range(count)]


def step_of(nodes: Sequence[Node], *, sampled: bool = True, vocab: int = 2) -> Step:
    """The step of nodes in depth-first order; pages of a node lie side by side. Where `sampled`, the last row of each
    node that has rows is drawn from, greedily."""
    parent, tokens, new = np.array([(n.parent, n.tokens, n.new) for n in nodes]).T
    start = np.zeros(len(nodes), np.int64)
    for i, above in enumerate(parent):
        start[i] = start[above] + tokens[above] if above >= 0 else 0
    end = start + tokens
    row_end = np.cumsum(new)
    below = row_end.copy()
    for i in range(len(nodes) - 1, -1, -1):
        if parent[i] >= 0:
            below[parent[i]] = max(below[parent[i]], below[i])
    n_pages = -(-tokens // PAGE)
    positions = np.concatenate([np.arange(e - n, e) for e, n in zip(end, new, strict=True)])
    fed = np.random.default_rng(0).integers(0, vocab, len(positions))
    return Step(
        fed, positions, np.ones(len(positions), bool), parent, start, end, row_end - new, row_end, below,
        np.arange(n_pages.sum()), np.cumsum(n_pages) - n_pages, PAGE,
        _greedy(row_end[new > 0] - 1 if sampled else np.empty(0, np.int64), positions),
    )  # fmt: skip


def _greedy(at: np.ndarray, positions: np.ndarray) -> Sampling:
    none, ones = np.zeros(len(at), np.int64), np.ones(len(at))
    return Sampling(at, 0 * ones, none, ones, 0 * ones, none, np.arange(len(at)), none, positions[at] + 1, none - 1)


def pairs(step: Step) -> int:
    """Pairs of query and key that a causal attention sees."""
    return int((step.positions + 1).sum())


def held(step: Step) -> int:
    """Tokens whose keys and values stand below the rows: each read once at least."""
    return int((step.end - step.start).sum())

"""Rows that arrive share what the tree has: against the number of distinct beginnings, and a look at every prompt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.books import check_kv
from umbel.cache.branches import split
from umbel.cache.graft import graft
from umbel.cache.keep import LeastRecent
from umbel.cache.pages import PagePool
from umbel.cache.prefix import PrefixIndex
from umbel.cache.tree import KVTree
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.plan.passes.prefix import build_forest

LOTS = st.lists(
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=5), min_size=1, max_size=5
)


def tree_of(page: int, *, indexed: bool = True) -> KVTree:
    tree = KVTree(PagePool(1000, page), LeastRecent(retains=True))
    if indexed:
        tree.index = PrefixIndex(tree)
    return tree


def arrive(tree: KVTree, prompts: list[list[int]]) -> None:
    workload = Workload.of(prompts, SamplingParams())
    graft(tree, workload, build_forest(workload), np.ones(len(prompts), np.int64))


def beginnings(prompts: list[list[int]]) -> int:
    return len({tuple(prompt[: i + 1]) for prompt in prompts for i in range(len(prompt))})


def shared(prompt: list[int], others: list[list[int]]) -> int:
    """Tokens that the prompt begins with and another begins with too."""
    return max((sum(np.cumprod([a == b for a, b in zip(prompt, other, strict=False)])) for other in others), default=0)


def tokens_of(tree: KVTree, row: int) -> list[int]:
    return [
        token
        for node in tree.path(int(tree.leaf[row]))
        for token in tree.tokens.of(node, 0, int(tree.length[node])).tolist()
    ]


@settings(max_examples=150)
@given(LOTS)
def test_what_only_is_planned_is_shared_to_the_token(lots: list[list[list[int]]]) -> None:
    """Lot after lot, the tree has as many tokens as a forest of all rows together."""
    tree, rows = tree_of(4), list[list[int]]()
    for lot in lots:
        arrive(tree, lot)
        rows += lot
        assert int(tree.length[tree.labels.low >= 0].sum()) == beginnings(rows)
        assert [tokens_of(tree, row) for row in range(len(rows))] == rows
        check_kv(tree)


@settings(max_examples=150)
@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), max_size=12), st.sampled_from((1, 2, 4)))
def test_what_is_held_is_shared_to_the_page(rows: list[list[int]], page: int) -> None:
    """A row that comes alone finds all whole pages of the beginning that it shares with any row before it."""
    tree = tree_of(page)
    for row, prompt in enumerate(rows):
        arrive(tree, [prompt])
        path = tree.path(int(tree.leaf[row]))
        held = sum(int(tree.held[n]) for n in path)
        assert held > shared(prompt, rows[:row]) - page
        tree.pin(path)
        nodes = np.array([n for n in path if tree.held[n] < tree.length[n]], np.int64)
        tree.compute(nodes, tree.length[nodes] - tree.held[nodes])
        tree.unpin(path, done=True)
        check_kv(tree)


def test_without_an_index_nothing_is_looked_up() -> None:
    tree = tree_of(4, indexed=False)
    arrive(tree, [[1, 2, 3]])
    arrive(tree, [[1, 2, 3]])
    assert tree.path(int(tree.leaf[0])) != tree.path(int(tree.leaf[1]))
    assert int(tree.length[tree.labels.low >= 0].sum()) == 6


def test_an_arriving_row_takes_part_in_the_counts_of_what_it_found() -> None:
    tree = tree_of(2)
    arrive(tree, [[1, 2, 3, 4], [1, 2, 3, 4]])
    arrive(tree, [[1, 2, 9]])
    top = tree.path(int(tree.leaf[2]))[0]
    assert tree.path(int(tree.leaf[0]))[0] == top and tree.waiting[top] == 3


def test_a_run_is_not_split_within_a_page() -> None:
    tree = tree_of(4)
    arrive(tree, [[1, 2, 3, 4, 5, 6]])
    node = int(tree.leaf[0])
    tree.pin([node])
    with pytest.raises(ValueError, match="run of 6 tokens cannot be split at 3"):
        split(tree, node, 3)
    assert tree.path(split(tree, node, 4)) == tree.path(node)[:1]
    with pytest.raises(ValueError, match="split at 2"):
        split(tree, node, 2)

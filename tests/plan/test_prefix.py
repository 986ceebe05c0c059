"""The prefix forest against a set of prefixes, on random and on adversarial workloads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.growth import assert_growth
from umbel.ir.forest import Forest
from umbel.ir.params import SamplingParams
from umbel.ir.selection import select_rows
from umbel.ir.workload import Workload
from umbel.plan.passes import prefix
from umbel.plan.passes.prefix import build_forest

PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), max_size=14)


def of_arrays(tokens: np.ndarray, lengths: np.ndarray) -> Workload:
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return Workload(tokens.astype(np.int32), offsets, [SamplingParams()] * len(lengths), np.arange(len(lengths)))


def path(forest: Forest, node: int) -> list[int]:
    nodes = []
    while node >= 0:
        nodes.append(node)
        node = int(forest.parent[node])
    return nodes[::-1]


def check(workload: Workload) -> Forest:
    """Everything that ir.forest promises, by plain Python."""
    forest = build_forest(workload)
    prompts = [tuple(workload.prompt(i).tolist()) for i in range(len(workload))]
    below = np.zeros(forest.n_nodes, int)
    for row, prompt in enumerate(prompts):
        nodes = path(forest, int(forest.leaf[row]))
        below[nodes] += 1
        parts = [workload.prompt(int(forest.source[n]))[forest.start[n] : forest.end[n]].tolist() for n in nodes]
        assert tuple(token for part in parts for token in part) == prompt
        assert [forest.start[n] for n in nodes] == [0, *(forest.end[n] for n in nodes[:-1])]
    assert forest.n_tokens == len({p[: i + 1] for p in prompts for i in range(len(p))})
    assert below.tolist() == forest.rows_below.tolist()
    assert (forest.end > forest.start).all()
    check_preorder(forest)
    check_order(forest, prompts)
    return forest


def check_preorder(forest: Forest) -> None:
    for node in range(forest.n_nodes):
        inside = [n for n in range(forest.n_nodes) if node in path(forest, n)]
        assert inside == list(range(node, int(forest.subtree_end[node])))
        assert forest.parent[node] < node


def check_order(forest: Forest, prompts: list[tuple[int, ...]]) -> None:
    assert sorted(forest.order.tolist()) == list(range(len(prompts)))
    for parent in range(-1, forest.n_nodes):
        kids = np.flatnonzero(forest.parent == parent)
        firsts = [min(r for r in range(len(prompts)) if k in path(forest, int(forest.leaf[r]))) for k in kids]
        assert firsts == sorted(firsts)
        assert parent < 0 or len(kids) != 1 or (forest.leaf == parent).any(), "a chain of nodes must be one node"
    assert forest.order.tolist() == sorted(range(len(prompts)), key=lambda row: (int(forest.leaf[row]), row))


@given(PROMPTS)
def test_forest_of_any_prompts(prompts: list[list[int]]) -> None:
    check(Workload.of(prompts, SamplingParams()))


@given(PROMPTS)
def test_windows_and_blocks_do_not_matter(prompts: list[list[int]]) -> None:
    workload = Workload.of(prompts, SamplingParams())
    whole = build_forest(workload)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix, "FIRST_WINDOW", 1)
        patch.setattr(prefix, "BLOCK", 3)
        small = build_forest(workload)
    for name in Forest.__slots__:
        assert np.array_equal(getattr(whole, name), getattr(small, name)), name


@given(PROMPTS, st.data())
def test_scopes_share_nothing(prompts: list[list[int]], data: st.DataObject) -> None:
    """Rows of several scopes have the forests that the rows of each scope have alone."""
    scope = np.array(data.draw(st.lists(st.integers(-1, 1), min_size=len(prompts), max_size=len(prompts))), np.int64)
    whole = replace(Workload.of(prompts, SamplingParams()), scope=scope)
    forest, first = build_forest(whole), 0
    for value in np.unique(scope):
        rows = np.flatnonzero(scope == value)
        part = build_forest(replace(select_rows(whole, rows), scope=None))
        nodes = slice(first, first + part.n_nodes)
        assert (forest.leaf[rows] - first).tolist() == part.leaf.tolist()
        assert np.where(part.parent < 0, -1, part.parent + first).tolist() == forest.parent[nodes].tolist()
        for name in ("start", "end", "rows_below"):
            assert getattr(forest, name)[nodes].tolist() == getattr(part, name).tolist(), name
        first += part.n_nodes
    assert first == forest.n_nodes
    check_preorder(forest)


def test_three_levels() -> None:
    head, tails = [1, 2, 3, 4], [[5, 6], [5, 7], [8]]
    forest = check(Workload.of([head + tail for tail in tails] + [head, [9]], SamplingParams()))
    assert forest.parent.tolist() == [-1, 0, 1, 1, 0, -1]
    assert forest.start.tolist() == [0, 4, 5, 5, 4, 0]
    assert forest.end.tolist() == [4, 5, 6, 6, 5, 1]
    assert forest.rows_below.tolist() == [4, 2, 1, 1, 1, 1]
    assert forest.order.tolist() == [3, 0, 1, 2, 4]


def test_order_follows_the_input() -> None:
    forest = build_forest(Workload.of([[9], [1, 1], [9, 9], [1, 0], [9]], SamplingParams()))
    assert forest.order.tolist() == [0, 4, 2, 1, 3]


def test_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has an empty prompt"):
        build_forest(Workload.of([[1], []], SamplingParams()))


def identical(n: int) -> Workload:
    return of_arrays(np.tile(np.arange(32), n), np.full(n, 32))


def many_children(n: int) -> Workload:
    rows = np.zeros((n, 9), np.int32)
    rows[:, 8] = np.random.default_rng(0).permutation(n)
    return of_arrays(rows.ravel(), np.full(n, 9))


def unrelated(n: int) -> Workload:
    return of_arrays(np.random.default_rng(1).integers(0, 150_000, n * 32), np.full(n, 32))


def three_levels(n: int) -> Workload:
    rows = np.arange(n)[:, None] // (n // np.array([1, 1, 1, 1, 10, 10, 10, 1000, 1000, n, n, n]))
    return of_arrays(np.repeat(rows, 4, axis=1).ravel(), np.full(n, 48))


def chain(n: int) -> Workload:
    """Row i is a prefix of row i + 1; every node holds one token."""
    lengths = np.arange(1, n + 1)
    return of_arrays(np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths), lengths)


@pytest.mark.parametrize(
    ("make", "nodes", "tokens"),
    [
        (identical, 1, 32),
        (many_children, 100_001, 100_008),
        (unrelated, None, None),
        (three_levels, 1 + 10 + 1000 + 100_000, 16 + 120 + 8000 + 1_200_000),
    ],
)
def test_a_hundred_thousand_rows_are_linear(make, nodes, tokens) -> None:
    small, large = make(10_000), make(100_000)
    forest = build_forest(large)
    assert nodes is None or (forest.n_nodes, forest.n_tokens) == (nodes, tokens)
    assert_growth(lambda: build_forest(small), lambda: build_forest(large), limit=20, least=0.05)


def test_deep_chain() -> None:
    forest = build_forest(chain(3_000))
    assert forest.n_nodes == forest.n_tokens == 3_000
    assert forest.parent.tolist() == list(range(-1, 2_999))
    assert forest.order.tolist() == list(range(3_000))


def test_one_long_prompt_and_its_double() -> None:
    long = list(range(100_000))
    assert build_forest(Workload.of([long], SamplingParams())).n_nodes == 1
    forest = build_forest(Workload.of([long, long[:-1], [*long[:-1], 7]], SamplingParams()))
    assert forest.n_nodes == 3
    assert forest.n_tokens == 100_001


def test_one_token_different_at_each_depth() -> None:
    long = np.arange(1_000)
    rows = np.tile(long, (1_000, 1))
    np.fill_diagonal(rows, 5_000)
    forest = build_forest(of_arrays(rows.ravel(), np.full(1_000, 1_000)))
    assert forest.n_tokens == sum(1_000 - i for i in range(1_000)) + 999  # row i leaves at token i; the last shares 999

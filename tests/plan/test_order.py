"""Renumbered forests against a recursion, and orders against what a run in them takes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.test_grouping import PROMPTS, chain, check_forest, draft_of, star, workload_of
from tests.plan.workloads import groups, run
from umbel.catalog import CATALOG
from umbel.ir.forest import Forest
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.plan.draft import PlanDraft
from umbel.plan.passes.order import order_rows, other_orders, reorder
from umbel.plan.passes.prefix import build_forest, share_prefixes


def planned(prompts: list[list[int]], lengths: list[int], chunk: int = 64, kv_tokens: int = 0) -> PlanDraft:
    workload = Workload.of(prompts, [SamplingParams(max_tokens=n) for n in lengths])
    ones = np.ones(len(prompts), np.int64)
    draft = draft_of([[1]])
    draft = dataclasses.replace(draft, workload=workload, samples=ones, limits=ones)
    draft = dataclasses.replace(draft, lengths=np.array(lengths), walked=np.array(lengths))
    draft = dataclasses.replace(draft, same_as=np.arange(len(prompts)), chunk=chunk, kv_tokens=kv_tokens)
    return share_prefixes(draft)


def visit(forest: Forest, key: list[int], row_key: list[int], node: int = -1) -> tuple[list[int], list[int]]:
    """Nodes and rows as a recursion meets them, siblings by key."""
    nodes, rows = (
        ([], []) if node < 0 else ([node], sorted(np.flatnonzero(forest.leaf == node), key=row_key.__getitem__))
    )
    kids = np.flatnonzero(forest.parent == node).tolist()
    for kid in sorted(kids, key=lambda k: key[k]):
        more = visit(forest, key, row_key, kid)
        nodes, rows = nodes + more[0], rows + more[1]
    return nodes, rows


@given(PROMPTS, st.data())
def test_reordered_forest_is_the_recursion(prompts: list[list[int]], data: st.DataObject) -> None:
    workload = workload_of(prompts)
    forest = build_forest(workload)
    key = data.draw(st.lists(st.integers(0, 3), min_size=forest.n_nodes, max_size=forest.n_nodes))
    row_key = data.draw(st.lists(st.integers(0, 2), min_size=len(prompts), max_size=len(prompts)))
    nodes, rows = visit(forest, key, row_key)
    found = reorder(forest, np.array(key), np.array(row_key))
    check_forest(workload, found, None)
    assert found.order.tolist() == rows
    assert found.end.tolist() == forest.end[nodes].tolist()
    assert found.source.tolist() == forest.source[nodes].tolist()


def test_every_order_is_in_the_catalogue() -> None:
    rows = {row.name for row in CATALOG if row.family == "order" and row.loads.startswith("umbel.plan.passes.order:")}
    draft = planned(groups(2, 3, 256, 8), [4] * 6)
    decision = order_rows(draft).decisions[-1]
    assert decision.name == "order"
    assert rows == {decision.value, *(name for name, _ in other_orders(draft))}


def test_no_key_changes_nothing() -> None:
    forest = build_forest(workload_of([[1, 2], [3], [1, 4], [3, 5], [1, 2]]))
    same = reorder(forest, np.zeros(forest.n_nodes))
    for name in Forest.__slots__:
        assert np.array_equal(getattr(forest, name), getattr(same, name)), name


@pytest.mark.parametrize("make", [chain, star])
def test_large_forests(make) -> None:
    forest = make(100_000)
    key = np.arange(forest.n_nodes)[::-1]
    turned = reorder(forest, key)
    assert np.array_equal(np.sort(turned.order), np.arange(100_000))
    assert np.array_equal(reorder(turned, np.where(turned.parent < 0, 0, turned.source)).order, forest.order)


def test_order_stays_when_all_rows_are_alike() -> None:
    done = order_rows(planned(groups(4, 6, 40, 10), [8] * 24))
    assert done.decisions[-1].value == "tree walk"
    assert done.decisions[-1].alternatives == ()
    assert order_rows(planned([], [])).decisions[-1].value == "input"
    assert order_rows(planned([[1], [2]], [3, 3])).order.tolist() == [0, 1]


def test_a_long_answer_at_the_end_is_moved_to_the_front() -> None:
    prompts = [[i, *run(i, 60)] for i in range(60)]
    draft = planned(prompts, [4] * 59 + [300])
    done = order_rows(draft)
    assert done.order[0] == 59
    assert done.order is done.forest.order
    decision = done.decisions[-1]
    assert dict(decision.alternatives)["input"] > 0
    assert sorted(done.order.tolist()) == list(range(60))


def test_the_cheapest_order_is_taken() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        prompts = groups(6, 8, 50, 12)
        draft = planned(prompts, rng.integers(1, 200, len(prompts)).tolist(), chunk=48, kv_tokens=1600)
        decision = order_rows(draft).decisions[-1]
        chosen = order_rows(order_rows(draft)).decisions[-1]  # priced again, from the order that was taken
        assert all(seconds >= 0.98 * min(s for _, s in chosen.alternatives) for _, seconds in decision.alternatives)


def test_decode_heavy_groups_come_first() -> None:
    """A5: of two groups alike but for their answers, the one that decodes more; of two with like answers, the one
    with fewer prompt tokens."""
    prompts = groups(3, 4, 40, 8)
    prompts[8:] = [p + [7] * 30 for p in prompts[8:]]
    draft = planned(prompts, [4] * 4 + [50] * 4 + [4] * 4)
    heavy = dict(other_orders(draft))["decode-heavy first"]
    assert heavy.order.tolist() == [4, 5, 6, 7, 0, 1, 2, 3, 8, 9, 10, 11]

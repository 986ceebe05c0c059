"""The order of a template's lines, beside every order there is and a trie that is counted by brute force."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.plan import layout as module
from umbel.plan.layout import Block, TemplateOrder, best_layout

Texts = list[list[str]]


def laid(texts: Texts, blocks: list[Block] | None = None) -> TemplateOrder:
    lengths = np.array([[len(text) for text in row] for row in texts], np.int64)
    digests = np.array([[hash(pair) for pair in enumerate(row)] for row in texts], np.int64).view(np.uint64)
    return best_layout(digests, lengths, [tuple(range(len(texts[0])))] if blocks is None else blocks)


def computed(texts: Texts, order: Block) -> int:
    """Characters of all different beginnings: what a forest of the rows' lines computes."""
    runs = {tuple(row[line] for line in order[:end]) for row in texts for end in range(1, len(order) + 1)}
    return sum(len(run[-1]) for run in runs)


def tables(lines: int) -> st.SearchStrategy[Texts]:
    cell = st.sampled_from(["a", "bb", "c" * 7, "d" * 40])
    return st.lists(st.lists(cell, min_size=lines, max_size=lines), min_size=1, max_size=12)


@given(texts=tables(4))
@settings(max_examples=60)
def test_no_order_computes_less(texts: Texts) -> None:
    found = laid(texts)
    assert sorted(found.order) == [0, 1, 2, 3]
    assert found.computed == computed(texts, found.order) == min(computed(texts, o) for o in permutations(range(4)))
    assert found.written == computed(texts, (0, 1, 2, 3))
    assert found.total == sum(len(text) for row in texts for text in row)


@given(texts=tables(5))
@settings(max_examples=40)
def test_blocks_stay_where_they_are(texts: Texts) -> None:
    """The third line is held; those before it and those behind it change places among themselves."""
    found = laid(texts, [(0, 1), (2,), (3, 4)])
    allowed = [(*a, 2, *b) for a in permutations((0, 1)) for b in permutations((3, 4))]
    assert found.order in allowed
    assert found.computed == min(computed(texts, order) for order in allowed)


def test_lines_that_cost_the_same_stay_as_they_are_written() -> None:
    assert laid([["a", "b", "c"], ["d", "e", "f"]]).order == (0, 1, 2)
    assert laid([["a", "b", "c"]] * 5).order == (0, 1, 2)


def test_what_repeats_comes_first() -> None:
    texts = [[f"name {i}", "a long description of the kind " + "AB"[i % 2], "yes"] for i in range(20)]
    found = laid(texts)
    assert found.order == (2, 1, 0)
    assert found.saved_share == pytest.approx((18 * 32 + 19 * 3) / found.total)


def test_of_many_lines_the_one_that_saves_most_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found without looking at all sets, so that it may cost a little more."""
    texts = [[f"{i}", f"k{i % 2}" * 9, f"m{i % 4}" * 5, "x" * 3] for i in range(16)]
    best = laid(texts)
    monkeypatch.setattr(module, "EXACT", 3)
    greedy = laid(texts)
    assert greedy.order[0] == 1 and greedy.computed == computed(texts, greedy.order) <= 1.1 * best.computed

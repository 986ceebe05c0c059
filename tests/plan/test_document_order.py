"""The order of documents, beside a trie that is counted by brute force and every order that there is."""

from __future__ import annotations

from itertools import permutations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.plan.document_order import DocumentTree, RowDocuments, document_tree

Rows = list[list[int]]
LENGTHS = {document: 3 + 7 * document for document in range(8)}


def shaped(rows: Rows) -> DocumentTree:
    nothing = [(0, 0)] * len(rows)
    return document_tree(RowDocuments(0, nothing, nothing, rows, LENGTHS))


def computed(rows: Rows) -> int:
    runs = {tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)}
    return sum(LENGTHS[run[-1]] for run in runs)


def ordered(tree: DocumentTree, rows: Rows) -> Rows:
    return [[row[at] for at in tree.order(row)] for row in rows]


some_rows = st.lists(st.lists(st.integers(0, 7), max_size=5), min_size=1, max_size=9)


@given(rows=some_rows)
@settings(max_examples=80)
def test_rows_keep_their_documents_and_no_two_trees_are_made(rows: Rows) -> None:
    tree = shaped(rows)
    assert [sorted(row) for row in ordered(tree, rows)] == [sorted(row) for row in rows]
    assert shaped(rows).digest == tree.digest


@given(rows=some_rows, more=st.lists(st.integers(0, 7), max_size=5))
@settings(max_examples=80)
def test_rows_with_the_same_documents_share_those_that_any_share(rows: Rows, more: list[int]) -> None:
    """Whatever their order was: what the tree places stands first, and is a function of the set."""
    tree = shaped([*rows, more])
    placed = [more[at] for at in tree.order(more)]
    turned = more[::-1]
    assert len(set(placed)) == len(set(turned))
    if len(set(more)) == len(more) and [sorted(row) for row in rows].count(sorted(more)):
        assert [turned[at] for at in tree.order(turned)] == placed


def test_the_document_that_saves_most_comes_first() -> None:
    """Document 5 is the longest of those that repeat; 1 comes next among the rows of 5, and 2 only among the others."""
    rows = [[1, 5, 0], [5, 2, 1], [2, 3], [2, 4]]
    assert ordered(shaped(rows), rows) == [[5, 1, 0], [5, 1, 2], [2, 3], [2, 4]]


def test_of_equal_ones_the_first_in_the_file_comes_first() -> None:
    lengths = dict.fromkeys(range(4), 10)
    tree = document_tree(RowDocuments(0, [], [], [[3, 1], [1, 3]], lengths))
    assert tree.order([1, 3]) == [1, 0] and tree.order([3, 1]) == [0, 1]


def test_documents_that_come_twice_in_a_row_count_once() -> None:
    rows = [[4, 4, 4], [1, 2]]
    assert shaped(rows).nodes == ({},) and shaped(rows).order([4, 4, 4]) == [0, 1, 2]


def test_rows_that_were_not_looked_at_follow_the_tree() -> None:
    tree = shaped([[1, 2, 3], [3, 2, 4], [2, 6]])
    assert [[1, 9, 2, 3][at] for at in tree.order([1, 9, 2, 3])][:2] in ([3, 2], [2, 3])
    assert tree.order([8, 9]) == [0, 1] and tree.order([]) == []


@given(rows=st.lists(st.permutations(range(3)), min_size=2, max_size=3))
@settings(max_examples=30)
def test_no_order_of_rows_with_equal_documents_computes_less(rows: Rows) -> None:
    """All are then computed once, which is the least there is."""
    tree = shaped(rows)
    least = min(computed([list(one) for one in some]) for some in product(permutations(range(3)), repeat=len(rows)))
    assert computed(ordered(tree, rows)) == least


def test_it_is_near_the_best_there_is() -> None:
    """A greedy choice: here an eighth above the best of all orders of all rows."""
    rows = [[1, 2, 3], [3, 2, 4], [4, 1, 2], [6, 2], [5, 6]]
    every = product(*(list(permutations(row)) for row in rows))
    least = min(computed([list(one) for one in some]) for some in every)
    assert least <= computed(ordered(shaped(rows), rows)) <= 1.13 * least < computed(rows)

"""What an index of answers proposes is what a search through all of them says; its memory is bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.spec.naive_index import NaiveIndex
from umbel.spec.answer_index import BEGIN, WIDTH, AnswerIndex
from umbel.spec.context_table import ContextTable

Lot = list[tuple[int, list[int]]]
MOST = 6


def roomy(limit: int = 1 << 20) -> AnswerIndex:
    """An index whose table leaves no context of a small test out."""
    index = AnswerIndex(limit)
    index.contexts = ContextTable(4096)
    return index


def add(index: AnswerIndex, lot: Lot) -> None:
    """Answers (scope, tokens) that finished together."""
    tokens = np.array([token for _, answer in lot for token in answer], np.int64)
    index.add(np.array([scope for scope, _ in lot]), tokens, np.cumsum([0, *(len(answer) for _, answer in lot)]))


def likely(index: AnswerIndex, asked: Lot, most: int = MOST) -> list[tuple[list[int], list[float]]]:
    """What is proposed behind answers (scope, tokens so far), and how likely each token is said to be."""
    tails = [([BEGIN] * WIDTH + so_far)[-WIDTH:] for _, so_far in asked]
    found = index.propose(np.array([scope for scope, _ in asked]), np.array(tails), most)
    assert ((found.likely > 0) == (np.arange(most) < found.counts[:, None])).all()
    each = zip(found.tokens.tolist(), found.likely.tolist(), found.counts.tolist(), strict=True)
    return [(tokens[:count], chances[:count]) for tokens, chances, count in each]


def propose(index: AnswerIndex, asked: Lot, most: int = MOST) -> list[list[int]]:
    """What is proposed behind answers."""
    return [tokens for tokens, _ in likely(index, asked, most)]


def answers(vocabulary: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, vocabulary - 1), max_size=14)


@given(data=st.data(), vocabulary=st.integers(1, 9))
def test_what_is_proposed_is_what_a_search_finds(data: st.DataObject, vocabulary: int) -> None:
    one = st.tuples(st.integers(0, 2), answers(vocabulary))
    index, naive = roomy(), NaiveIndex()
    for lot in data.draw(st.lists(st.lists(one, min_size=1, max_size=5), max_size=6)):
        add(index, lot)
        naive.add(lot)
        begun = [(scope, answer[: len(answer) // 2]) for scope, answer in lot]
        asked = begun + data.draw(st.lists(one, min_size=1, max_size=4))
        assert likely(index, asked) == [naive.propose(scope, so_far, MOST) for scope, so_far in asked]
    assert index.contexts.size == len(naive.entries)
    assert index.contexts.left_out == 0


def test_every_token_adds_one_context_at_most(seed: int) -> None:
    draw, index = np.random.default_rng(seed), roomy()
    for vocabulary in (2, 50, 5000):
        before = index.contexts.size
        lot: Lot = [(0, draw.integers(0, vocabulary, 200).tolist()) for _ in range(5)]
        add(index, lot)
        assert index.contexts.size - before <= 1000
    before = index.contexts.size
    for _ in range(6):
        add(index, lot)
    settled = index.contexts.size
    add(index, lot)
    assert before < settled == index.contexts.size  # text that was foreseen adds none


def test_the_usual_token_stays_though_others_come() -> None:
    index = roomy()
    for answer in ([7, 1], [7, 1], [7, 2], [7, 1], [7, 3]):
        add(index, [(0, answer)])
    assert propose(index, [(0, [7])]) == [[1]]
    for _ in range(4):
        add(index, [(0, [7, 3])])
    assert propose(index, [(0, [7])]) == [[3]]


def test_what_always_comes_is_likely_and_what_varies_is_not(seed: int) -> None:
    draw, index = np.random.default_rng(seed), roomy()
    for _ in range(60):
        add(index, [(0, [1, 2, 100 + int(draw.integers(0, 2**20)), 3, 4])])
    (_, chances), (tokens, _) = likely(index, [(0, []), (0, [1, 2, 50, 3])])
    assert min(chances[:2]) > 0.9
    assert chances[2] < 0.25
    assert tokens == [4]


@pytest.mark.parametrize("limit", [8, 61, 500])
def test_the_older_half_is_forgotten_at_the_limit(limit: int, seed: int) -> None:
    draw, index = np.random.default_rng(seed), roomy(limit)
    written, answers = 0, list[tuple[int, int, int]]()  # tokens in all; of each answer its first, length and place
    for i in range(60):
        size = int(draw.integers(2, limit // 2))
        add(index, [(0, list(range(1000 * i, 1000 * i + size)))])
        answers.append((1000 * i, size, written))
        written += size + 1
        assert index.contexts.size <= index.n_tokens <= limit
        for first, length, place in answers:
            found = propose(index, [(0, [first])], limit)[0]
            if written - place < limit // 2:
                assert found == list(range(first + 1, first + length))
            if written - place > limit + length:
                assert found == []


def test_an_answer_longer_than_half_the_limit_is_cut() -> None:
    index = roomy(20)
    add(index, [(0, list(range(100)))])
    assert propose(index, [(0, [0])], 99) == [list(range(1, 9))]


def test_a_large_lot_is_that_of_its_parts() -> None:
    whole, parts = roomy(64), roomy(64)
    lot: Lot = [(0, [10 * i, 10 * i + 1, 10 * i + 2]) for i in range(40)]
    add(whole, lot)
    for one in lot:
        add(parts, [one])
    asked: Lot = [(0, [10 * i]) for i in range(40)]
    last = propose(whole, asked)
    assert last[-8:] == propose(parts, asked)[-8:] == [[10 * i + 1, 10 * i + 2] for i in range(32, 40)]


@pytest.mark.parametrize("vocabulary", [40, 50_000])
def test_memory_stays_below_twenty_bytes_a_token(vocabulary: int, seed: int) -> None:
    draw, index = np.random.default_rng(seed), AnswerIndex()
    for _ in range(12):
        add(index, [(0, draw.integers(0, vocabulary, 500).tolist()) for _ in range(10)])
        assert index.n_bytes <= 20 * index.n_tokens + 2**14
    assert index.contexts.left_out < 0.04 * index.contexts.size


def test_a_limit_that_places_cannot_reach() -> None:
    with pytest.raises(ValueError, match="limit=16777216: an index holds 1 to 16,777,215 tokens"):
        AnswerIndex(1 << 24)

"""The batch drafts for itself: what samples are given is what finished answers of their group went on with."""

from __future__ import annotations

import numpy as np

from umbel.spec.base import Drafts, Setting
from umbel.spec.batch import LOT, BatchDrafter

PROMPT = np.array([5, 6], np.int32)


def drafter_after(answers: list[tuple[int, list[int]]]) -> BatchDrafter:
    """A drafter that has seen these answers (group, tokens) finish."""
    drafter = BatchDrafter(Setting())
    for rank, (group, tokens) in enumerate(answers):
        drafter.start(rank, rank, group, PROMPT)
        if tokens:
            extend(drafter, [rank], [tokens])
        drafter.end(rank, done=True)
        drafter.start(10_000 + rank, 0, 0, PROMPT)
        drafter.propose(np.array([10_000 + rank]), np.array([1]))  # what is finished by now is learned
        drafter.end(10_000 + rank, done=False)
    return drafter


def extend(drafter: BatchDrafter, ranks: list[int], each: list[list[int]]) -> None:
    tokens = np.array([token for tokens in each for token in tokens], np.int32)
    drafter.extend(np.array(ranks), tokens, np.cumsum([0, *map(len, each)]))
    tokens[:] = 77  # the arrays may be written to after the call


def listed(drafts: Drafts) -> list[list[int]]:
    assert drafts.likely is not None
    assert len(drafts.likely) == len(drafts.tokens) == drafts.begin[-1]
    return [drafts.tokens[b:e].tolist() for b, e in zip(drafts.begin[:-1], drafts.begin[1:], strict=True)]


def test_samples_are_given_what_their_group_wrote() -> None:
    drafter = drafter_after([(0, [1, 2, 3, 4]), (1, [1, 8, 9])] * 10)
    for rank, group in ((100, 0), (101, 1)):
        drafter.start(rank, rank, group, PROMPT)
    asked = np.array([100, 101])
    assert listed(drafter.propose(asked, np.array([9, 9])))[0][:1] == [1]
    extend(drafter, [100, 101], [[1], [1]])
    assert listed(drafter.propose(asked, np.array([2, 1]))) == [[2, 3], [8]]
    extend(drafter, [100], [[2, 3, 4]])
    assert listed(drafter.propose(asked[:1], np.array([3]))) == [[]]  # the answer ended there


def test_a_new_group_begins_with_what_others_wrote() -> None:
    drafter = drafter_after([(0, [1, 2, 3, 4])])
    drafter.start(100, 100, 7, PROMPT)
    assert listed(drafter.propose(np.array([100]), np.array([3]))) == [[1, 2, 3]]


def test_abandoned_answers_teach_nothing() -> None:
    drafter = drafter_after([])
    drafter.start(0, 0, 0, PROMPT)
    extend(drafter, [0], [[1, 2, 3]])
    drafter.end(0, done=False)
    drafter.start(1, 1, 0, PROMPT)
    assert listed(drafter.propose(np.array([1]), np.array([4]))) == [[]]


def test_many_samples_of_all_lengths_come_and_go(seed: int) -> None:
    draw, drafter, answers = np.random.default_rng(seed), BatchDrafter(Setting()), dict[int, list[int]]()
    for rank in range(300):
        drafter.start(rank, rank, rank % 3, PROMPT)
        answers[rank] = []
        some = draw.permutation(list(answers))[: draw.integers(1, 6)].tolist()
        each = [draw.integers(0, 50, draw.integers(1, 40)).tolist() for _ in some]
        extend(drafter, some, each)
        for one, tokens in zip(some, each, strict=True):
            answers[one] += tokens
        for one in [one for one, tokens in answers.items() if len(tokens) > 60]:
            drafter.end(one, done=True)
            done = answers.pop(one)
            drafter.start(10_000 + one, 0, one % 3, PROMPT)
            for have in (len(done) - 2, len(done) - 20):
                extend(drafter, [10_000 + one], [done[:have]])
                found = listed(drafter.propose(np.array([10_000 + one]), np.array([3])))[0]
                assert len(found) <= 3
                drafter.end(10_000 + one, done=False)
                drafter.start(10_000 + one, 0, one % 3, PROMPT)
            drafter.end(10_000 + one, done=False)
    assert drafter.index.n_tokens > 10 * LOT


def test_answers_are_put_into_the_index_in_lots(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    drafter = drafter_after([(0, [i, i + 1, i + 2]) for i in range(40)])
    drafter.start(99, 99, 0, PROMPT)
    drafter.propose(np.array([99]), np.array([1]))
    lots: list[int] = []
    monkeypatch.setattr(drafter.index, "add", lambda scopes, tokens, begin: lots.append(len(tokens)))
    for rank in range(100, 200):
        drafter.start(rank, rank, 0, PROMPT)
        extend(drafter, [rank], [[1, 2, 3]])
        drafter.end(rank, done=True)
        drafter.propose(np.array([99]), np.array([1]))
    assert 2 < len(lots) < 10
    assert sum(lots) > 200

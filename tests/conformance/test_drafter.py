"""Every drafter of the catalogue: what it may propose, and that this follows from the tokens that it has seen."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.packages import ROWS, TOYS, installed, write_package
from umbel import registry
from umbel.spec.base import Drafter, Setting

TOY = "echo"
WIDTH = 6
NAMES = dict.fromkeys([*registry.names("drafter"), TOY])
# One that needs an argument is a model, which has tests of its own: this vocabulary is none's.
EACH = pytest.mark.parametrize("name", [n for n in NAMES if n == TOY or not registry.find("drafter", n).argument])


@pytest.fixture(autouse=True)
def toys(tmp_path: Path) -> Iterator[None]:
    """The drafter of another package is there too, by its entry point."""
    write_package(tmp_path, "umbel-toys", ROWS)
    with installed(tmp_path, TOYS):
        yield


class Told:
    """A drafter and samples whose tokens repeat themselves, told as the engine tells them."""

    def __init__(self, name: str, seed: int):
        self.drafter: Drafter = registry.load("drafter", name, Setting(width=WIDTH, context=500))
        self.rng = random.Random(seed)
        self.prompts: dict[int, np.ndarray] = {}  # by rank, of samples that have not ended
        self.answers: dict[int, list[int]] = {}

    def start(self, rank: int) -> None:
        prompt = np.array([self.rng.randrange(WIDTH) for _ in range(self.rng.randrange(1, 20))], np.int32)
        self.drafter.start(rank, rank // 2, rank % 3, prompt)
        self.prompts[rank], self.answers[rank] = prompt, []

    def extend(self, ranks: list[int], count: int) -> None:
        """Some samples get up to `count` tokens, of which many repeat the two before."""
        more = [[self.rng.choice((1, 2, 3, self.rng.randrange(WIDTH)))] * self.rng.randint(1, count) for _ in ranks]
        self.tell(ranks, more)

    def tell(self, ranks: list[int], more: list[list[int]]) -> None:
        tokens = np.array([token for tokens in more for token in tokens], np.int32)
        self.drafter.extend(np.array(ranks, np.int64), tokens, np.cumsum([0, *map(len, more)]))
        tokens[:] = -1  # the engine may use the array again
        for rank, new in zip(ranks, more, strict=True):
            self.answers[rank] += new

    def propose(self, ranks: list[int], most: list[int]) -> list[list[int]]:
        drafts = self.drafter.propose(np.array(ranks, np.int64), np.array(most, np.int64))
        assert drafts.begin[0] == 0 and drafts.begin[-1] == len(drafts.tokens) and len(drafts.begin) == len(ranks) + 1
        assert (drafts.counts >= 0).all() and (drafts.counts <= most).all()
        assert ((drafts.tokens >= 0) & (drafts.tokens < WIDTH)).all()
        return [drafts.tokens[drafts.begin[i] : drafts.begin[i + 1]].tolist() for i in range(len(ranks))]

    def end(self, rank: int, *, done: bool) -> None:
        self.drafter.end(rank, done=done)
        del self.prompts[rank], self.answers[rank]


def lived(name: str, seed: int, moves: int = 60) -> Told:
    """A drafter after some samples came, got tokens and went."""
    told, rank = Told(name, seed), 0
    for _ in range(moves):
        there = list(told.answers)
        move = told.rng.random()
        if move < 0.25 or not there:
            told.start(rank)
            rank += 1
        elif move < 0.8:
            some = sorted(told.rng.sample(there, told.rng.randint(1, len(there))))
            told.extend(some, 4)
        else:
            told.end(told.rng.choice(there), done=told.rng.random() < 0.7)
    return told


@EACH
def test_it_proposes_ids_of_the_vocabulary_and_no_more_than_it_may(name: str) -> None:
    proposed = 0
    for seed in range(12):
        told = lived(name, seed)
        ranks = sorted(told.answers)
        for most in (1, 3, 40):
            proposed += sum(map(len, told.propose(ranks, [most] * len(ranks))))
        assert told.propose([], []) == []
    assert proposed


@EACH
def test_proposals_follow_from_what_it_was_told(name: str) -> None:
    """The same when asked again, and in part when asked for fewer, whatever other samples are asked for."""
    for seed in range(12):
        told, again = lived(name, seed), lived(name, seed)
        ranks = sorted(told.answers)
        found = told.propose(ranks, [8] * len(ranks))
        assert found == again.propose(ranks, [8] * len(ranks)) == told.propose(ranks, [8] * len(ranks))
        for rank, drafts in zip(ranks, found, strict=True):
            assert told.propose([rank], [3]) == [drafts[:3]]


@EACH
def test_a_run_that_repeats_itself_is_proposed(name: str) -> None:
    """As it did before in the sample and in one that is done."""
    told = Told(name, 0)
    for rank in (7, 8):
        told.drafter.start(rank, 0, 0, np.array([1, 2, 3, 4] * 3, np.int32))
        told.prompts[rank], told.answers[rank] = np.zeros(0, np.int32), []
        told.tell([rank], [[5] * (16 if rank == 7 else 6)])
        if rank == 7:
            told.end(rank, done=True)
    assert told.propose([8], [1]) == [[5]]

"""Drafters that know what is to come and say as much of it as asked; they check what the seam promises to them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from umbel.spec.base import Constant, Drafts, Ints, TokenIds

Whole = Callable[[int], Sequence[int]]


class Scripted:
    """Proposes the next tokens of `whole`, which gives the answer of a rank, each right with probability `right`, and
    in place of those that are wrong one of `wrong`. Behind the end of an answer, and now and then instead of it, come
    `wrong` ones too. What it does follows from the sample and the place."""

    def __init__(self, whole: Whole, right: float, wrong: Sequence[int], seed: int = 0):
        self.whole, self.right, self.wrong, self.seed = whole, right, wrong, seed
        self.has: dict[int, list[int]] = {}  # by rank
        self.ended: set[int] = set()
        self.proposed = 0

    def start(self, rank: int, row: int, group: int, prompt: TokenIds) -> None:
        """Implement `Drafter.start`: no sample starts twice."""
        assert rank not in self.has and rank not in self.ended and len(prompt)
        self.has[rank] = []

    def extend(self, ranks: Ints, tokens: TokenIds, begin: Ints) -> None:
        """Implement `Drafter.extend`: what came is the answer's."""
        assert begin[0] == 0 and begin[-1] == len(tokens) and len(set(ranks.tolist())) == len(ranks) == len(begin) - 1
        for i, rank in enumerate(ranks.tolist()):
            more = tokens[begin[i] : begin[i + 1]].tolist()
            self.has[rank] += more
            has = self.has[rank]
            assert more and has == list(self.whole(rank)[: len(has)]), (rank, has)

    def propose(self, ranks: Ints, most: Ints) -> Drafts:
        """Implement `Drafter.propose`: the ranks ascend, and all their tokens are known."""
        assert (ranks[1:] > ranks[:-1]).all() and (most > 0).all()
        found = [self._next(rank, k) for rank, k in zip(ranks.tolist(), most.tolist(), strict=True)]
        self.proposed += sum(map(len, found))
        return Drafts.of(found)

    def end(self, rank: int, *, done: bool) -> None:
        """Implement `Drafter.end`: an answer that is done was given whole."""
        has = self.has.pop(rank)
        self.ended.add(rank)
        assert not done or has == list(self.whole(rank)), (rank, has)

    def _next(self, rank: int, most: int) -> list[int]:
        at = len(self.has[rank])
        rng = random.Random(f"{self.seed} {rank} {at}")
        truth = list(self.whole(rank)[at:])
        some = rng.randint(0, most) if 0 < self.right < 1 else most
        return [
            truth[i] if i < len(truth) and rng.random() < self.right else self._other(rng, truth[i : i + 1])
            for i in range(some)
        ]

    def _other(self, rng: random.Random, truth: list[int]) -> int:
        return rng.choice([token for token in self.wrong if [token] != truth])


def check_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have steps check what is proposed, up to four tokens, whatever that costs on this machine."""
    monkeypatch.setattr("umbel.engine.build.PricedDepth", lambda prices: Constant(4))

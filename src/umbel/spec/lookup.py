"""Looks a row up in what finished rows wrote and in itself, and proposes what is likelier.

Parts of answers are alike in all rows of a job, such as the keys of JSON, and others stand in the row's own prompt,
such as the values. How often the next token came true is counted for both: for the batch by how likely it says that
token is, for the row's own text by how many tokens were found again.
"""

from __future__ import annotations

import numpy as np

from umbel.spec.base import Drafts, Ints, Setting, TokenIds
from umbel.spec.batch import BatchDrafter
from umbel.spec.ngram import LONGEST, NGrams

LEVELS = 8  # of how likely the batch says that a token is
TRUST = 4.0  # tokens that what is assumed at first counts for
FADE = 512.0  # tokens of a kind beyond which older ones count half
# Kinds of tokens, with what is assumed of them: those of the batch by level, those found by 1 to LONGEST tokens.
_ASSUMED = [*((np.arange(LEVELS) + 0.5) / LEVELS).tolist(), 0.3, 0.5, 0.7]
_OWN = LEVELS - 1  # and the number of tokens found: the kind

Guess = tuple[int, int]  # a kind, and the next token


class LookupDrafter:
    """Asks a BatchDrafter and NGrams."""

    def __init__(self, setting: Setting):
        self._batch, self._own = BatchDrafter(setting), NGrams(setting)
        self._tried, self._true = [TRUST] * len(_ASSUMED), [TRUST * rate for rate in _ASSUMED]
        self._guesses: dict[int, list[Guess]] = {}  # by rank: what both said when they were asked last

    def start(self, rank: int, row: int, group: int, prompt: TokenIds) -> None:
        """For both."""
        self._batch.start(rank, row, group, prompt)
        self._own.start(rank, row, group, prompt)

    def extend(self, ranks: Ints, tokens: TokenIds, begin: Ints) -> None:
        """For both; who was right is counted."""
        for rank, token in zip(ranks.tolist(), tokens[begin[:-1]].tolist(), strict=True):
            for kind, guess in self._guesses.pop(rank, ()):
                self._count(kind, guess == token)
        self._batch.extend(ranks, tokens, begin)
        self._own.extend(ranks, tokens, begin)

    def propose(self, ranks: Ints, most: Ints) -> Drafts:
        """What the one says that is likelier to be right about the next token."""
        batch = self._batch.propose(ranks, most)
        assert batch.likely is not None
        begin, tokens, likely = batch.begin.tolist(), batch.tokens.tolist(), batch.likely.tolist()
        found, says = list[int](), list[float]()
        ends = [0]
        for i, (rank, k) in enumerate(zip(ranks.tolist(), most.tolist(), strict=True)):
            part = slice(begin[i], begin[i + 1])
            draft, chances = self._likelier(rank, k, tokens[part], likely[part])
            found += draft
            says += chances
            ends.append(len(found))
        return Drafts(np.array(found, np.int64), np.array(ends), np.array(says))

    def end(self, rank: int, *, done: bool) -> None:
        """For both."""
        self._guesses.pop(rank, None)
        self._batch.end(rank, done=done)
        self._own.end(rank, done=done)

    def _likelier(self, rank: int, most: int, draft: list[int], chances: list[float]) -> tuple[list[int], list[float]]:
        """The batch's draft for a sample or its own one, whose tokens behind the next are as likely as what was found
        by the most tokens."""
        guesses = list[Guess]()
        own, matched = self._own.find(rank, most)
        if draft:
            kind = min(int(chances[0] * LEVELS), LEVELS - 1)
            guesses.append((kind, draft[0]))
            chances[0] = self._rate(kind)
        if own:
            kind = _OWN + matched
            guesses.append((kind, own[0]))
            if not draft or self._rate(kind) > chances[0]:
                draft, chances = own, [self._rate(kind), *[self._rate(_OWN + LONGEST)] * (len(own) - 1)]
        self._guesses[rank] = guesses
        return draft, chances

    def _rate(self, kind: int) -> float:
        return self._true[kind] / self._tried[kind]

    def _count(self, kind: int, came: bool) -> None:
        """A token of that kind came true, or did not."""
        self._tried[kind] += 1
        self._true[kind] += came
        if self._tried[kind] > FADE:
            self._tried[kind] /= 2
            self._true[kind] /= 2

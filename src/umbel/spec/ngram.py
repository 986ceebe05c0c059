"""Proposes what followed the last tokens of a row where they stood before, in its prompt or in its answer.

Prompt lookup (LLMA, arXiv 2304.04487): answers quote, copy and repeat. The last three tokens are looked up, then the
last two; of several places the latest counts.
"""

from __future__ import annotations

import numpy as np

from umbel.spec.base import Drafts, Ints, Setting, TokenIds

LONGEST = 3  # tokens that are looked up, at most
PAD = LONGEST  # places before the first token, so that there are three tokens before each
BASE = 1_000_003  # of the hash: a prime above the size of vocabularies, whose square times an id has less than 63 bits
LEAST = 61  # tokens that a text has room for beyond its prompt, at least


class Text:
    """The tokens of a sample, and a table for one, two and three tokens: where the token stands that followed them
    last, at the hash of these. What hashes alike takes the other's place, which costs a proposal now and then."""

    def __init__(self, prompt: TokenIds):
        self._size = PAD + len(prompt)
        self._make_room(self._size + LEAST, np.append(np.full(PAD, -1, np.int32), prompt))

    def extend(self, tokens: list[int]) -> None:
        """More tokens, behind those that are there."""
        text, size = self._text, self._size
        if size + len(tokens) > len(text):
            self._make_room(2 * (size + len(tokens)), np.array(text[:size]))
            text = self._text
        (ones, pairs, triples), places = self._tables, self._places
        a, b, c = text[size - 3], text[size - 2], text[size - 1]
        for token in tokens:
            pair = b * BASE + c
            ones[c % places] = pairs[pair % places] = triples[(a * BASE * BASE + pair) % places] = size
            text[size] = token
            a, b, c = b, c, token
            size += 1
        self._size = size

    def find(self, most: int, least: int = LONGEST - 1) -> tuple[list[int], int]:
        """What may follow, as it did where the last tokens stood before, and how many tokens were found so, `least` or
        more; what reaches up to the end of the text goes on as a repetition."""
        text, size = self._text, self._size
        at, matched = self._place(least)
        found: list[int] = text[at : min(at + most, size)].tolist() if matched else []
        while 0 < len(found) < most:
            found += found[: most - len(found)]
        return found, matched

    def _place(self, least: int) -> tuple[int, int]:
        """Where the token stands that followed the last tokens, and how many these are; 0 where there is none."""
        text, size, (ones, pairs, triples) = self._text, self._size, self._tables
        a, b, c = text[size - 3], text[size - 2], text[size - 1]
        pair = b * BASE + c
        at = triples[(a * BASE * BASE + pair) % self._places]
        if at >= PAD and (text[at - 3], text[at - 2], text[at - 1]) == (a, b, c):
            return at, 3
        at = pairs[pair % self._places]
        if at >= PAD and (text[at - 2], text[at - 1]) == (b, c):
            return at, 2
        at = ones[c % self._places]
        if least == 1 and at >= PAD and text[at - 1] == c:
            return at, 1
        return 0, 0

    def _make_room(self, room: int, tokens: TokenIds) -> None:
        """Room for so many tokens, with those that are there and their tables."""
        size, self._places = len(tokens), 2 * room + 1
        text, tables = np.zeros(room, np.int32), np.zeros((LONGEST, self._places), np.int32)
        text[:size] = tokens
        a, b, c = (text[i : size - PAD + i].astype(np.int64) for i in range(PAD))
        pair, follow = b * BASE + c, np.arange(PAD, size)
        for table, hashes in zip(tables, (c, pair, a * BASE * BASE + pair), strict=True):
            table[hashes % self._places] = follow  # of those that hash alike, the last
        # One entry at a time is read and written faster through a memoryview.
        self._text, self._tables = memoryview(text), [memoryview(table) for table in tables]


class NGrams:
    """Looks each row up in itself: 28 bytes a token, and a few microseconds a step."""

    def __init__(self, setting: Setting):
        self._texts: dict[int, Text] = {}  # by rank

    def start(self, rank: int, row: int, group: int, prompt: TokenIds) -> None:
        """Read the prompt."""
        self._texts[rank] = Text(prompt)

    def extend(self, ranks: Ints, tokens: TokenIds, begin: Ints) -> None:
        """Read what is new of answers."""
        new, ends, texts = tokens.tolist(), begin.tolist(), self._texts
        for i, rank in enumerate(ranks.tolist()):
            texts[rank].extend(new[ends[i] : ends[i + 1]])

    def propose(self, ranks: Ints, most: Ints) -> Drafts:
        """What followed where the last tokens stood before."""
        texts = self._texts
        return Drafts.of([texts[rank].find(k)[0] for rank, k in zip(ranks.tolist(), most.tolist(), strict=True)])

    def find(self, rank: int, most: int) -> tuple[list[int], int]:
        """The same for one sample, also where only its last token stood before, with how many tokens were found."""
        return self._texts[rank].find(most, 1)

    def end(self, rank: int, *, done: bool) -> None:
        """Drop the text."""
        del self._texts[rank]

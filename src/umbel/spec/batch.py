"""The batch drafts for itself: a sample is given what finished answers of its template went on with.

Rows of a job answer alike: labels, keys of JSON, boilerplate, passages of a document that all are given. What one row
has written is proposed to the next, from its first token on, without another model (AnswerIndex).
"""

from __future__ import annotations

import numpy as np

from umbel.ir.columns import runs
from umbel.spec.answer_index import BEGIN, WIDTH, AnswerIndex
from umbel.spec.base import Drafts, Ints, Setting, TokenIds

LOT = 1024  # tokens of finished answers that are put into the index together, or fewer while it is small
_PART = 2  # of the index


class BatchDrafter:
    """Proposes what finished answers of the same group have behind the last tokens of a sample's answer."""

    def __init__(self, setting: Setting):
        self.index = AnswerIndex()
        self._slots: dict[int, int] = {}  # rank -> line of `_out`
        self._free: list[int] = []
        self._group, self._count = np.zeros(0, np.int64), np.zeros(0, np.int64)  # [lines]
        self._out = np.zeros((0, WIDTH + 16), np.int32)  # [lines]: WIDTH times BEGIN, then the answer so far
        self._finished: list[tuple[int, TokenIds]] = []  # (group, answer), not in the index yet
        self._waiting = 0  # their tokens

    def start(self, rank: int, row: int, group: int, prompt: TokenIds) -> None:
        """A sample without tokens."""
        if not self._free:
            self._free = list(range(len(self._out), 2 * len(self._out) + 64))[::-1]
            more = len(self._free)
            self._group, self._count = (np.append(a, np.zeros(more, np.int64)) for a in (self._group, self._count))
            self._out = np.append(self._out, np.full((more, self._out.shape[1]), BEGIN, np.int32), 0)
        slot = self._slots[rank] = self._free.pop()
        self._group[slot], self._count[slot] = group, 0

    def extend(self, ranks: Ints, tokens: TokenIds, begin: Ints) -> None:
        """Samples have further tokens."""
        slots, more = self._slots_of(ranks), np.diff(begin)
        have = self._count[slots]
        wide = WIDTH + int((have + more).max(initial=0)) - self._out.shape[1]
        if wide > 0:
            self._out = np.pad(self._out, ((0, 0), (0, max(wide, self._out.shape[1]))))
        self._out[np.repeat(slots, more), runs(have + WIDTH, more)] = tokens
        self._count[slots] = have + more

    def propose(self, ranks: Ints, most: Ints) -> Drafts:
        """What came after the same tokens before."""
        if self._waiting > min(LOT, self.index.n_tokens // _PART):
            self._learn()
        slots = self._slots_of(ranks)
        tails = self._out[slots[:, None], self._count[slots, None] + np.arange(WIDTH)].astype(np.int64)
        found = self.index.propose(self._group[slots], tails, int(most.max(initial=1)))
        counts = np.minimum(found.counts, most)
        given = np.arange(found.tokens.shape[1]) < counts[:, None]
        return Drafts(found.tokens[given].astype(np.int64), np.append(0, np.cumsum(counts)), found.likely[given])

    def end(self, rank: int, *, done: bool) -> None:
        """The sample is gone; a finished answer is for others to be drafted from."""
        slot = self._slots.pop(rank)
        self._free.append(slot)
        count = self._count.item(slot)
        if done and count:
            self._finished.append((self._group.item(slot), self._out[slot, WIDTH : WIDTH + count].copy()))
            self._waiting += count

    def _learn(self) -> None:
        groups, answers = zip(*self._finished, strict=True)
        tokens, begin = np.concatenate(answers).astype(np.int64), np.cumsum([0, *map(len, answers)])
        self.index.add(np.array(groups), tokens, begin)
        self._finished, self._waiting = [], 0

    def _slots_of(self, ranks: Ints) -> Ints:
        slots = self._slots
        return np.array([slots[rank] for rank in ranks.tolist()], np.int64)

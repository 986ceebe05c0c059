"""The phase that may come last: samples that decode check proposed tokens with what is left of budget and pages.

No sample gives way for a token that may not come true, no prompt waits for it and nothing is evicted: a sample gets one
only where there is budget and room after everybody else. What was proposed stands in the sample's answer until the
draws of the step are known (speculative decoding, arXiv 2211.17192).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from umbel.ir.columns import Columns, runs
from umbel.ir.sampled import SampledTokens
from umbel.sched.agenda import Agenda
from umbel.sched.books import Books
from umbel.sched.phases.base import Phase
from umbel.sched.phases.proposals import drawing_of, put
from umbel.spec.base import Decoding, Depth, Drafter, DrawRule

Ints = NDArray[np.int64]


class Drafted(Columns):
    """What the drafter knows of the sample in a slot: its `rank` (that of another or -1: nothing) and how many of its
    tokens (`told`)."""

    _FILLS: ClassVar[dict[str, int]] = {"rank": -1, "told": 0}
    rank: Ints
    told: Ints


class Speculate(Phase):
    """Has `drafter` propose tokens, as many as `depth` says."""

    def __init__(self, drafter: Drafter, depth: Depth):
        self.drafter, self.depth = drafter, depth
        self._known = Drafted(64)
        self._ahead = False  # whether steps are decided while others are under way
        self._draw_as: Callable[[int, DrawRule], None] | None = getattr(drafter, "draw_as", None)

    def fill(self, agenda: Agenda, books: Books) -> None:
        """Put proposed tokens behind the last ones of samples on the agenda."""
        self._ahead |= len(books.in_flight) > 0
        if len(agenda.slots) == 0:
            return
        seqs, which = books.seqs, drawing_of(agenda, books, lockstep=False)
        slots = agenda.slots[which]
        most = self._most(agenda, books, slots)
        asked = most > 0
        seqs.awaits[slots] = asked
        some = np.flatnonzero(asked & (seqs.out[slots, seqs.n_out[slots] - 1] >= 0))  # those under way are not known
        if len(some):
            which, slots = which[some], slots[some]
            self._tell(books, slots, seqs.n_out[slots])
            drafts = self.drafter.propose(seqs.rank[slots], most[some])
            put(agenda, books, which, drafts, self.depth.keep(some, drafts), ahead=self._ahead)

    def learn(self, books: Books, sampled: SampledTokens, keep: Ints) -> None:
        """Count which of the proposed tokens came true, and let the rule learn from it."""
        drawing = sampled.drawing
        if drawing.single:
            return
        which = np.flatnonzero((drawing.counts > 1) & ~books.requests.lockstep[drawing.rows])
        if len(which) == 0:  # all that was proposed was forced
            return
        drafted, accepted = drawing.counts[which] - 1, sampled.accepted[which]
        books.drafted_tokens += int(drafted.sum())
        books.accepted_tokens += int(np.minimum(accepted, keep[which]).sum())
        self.depth.learn(drawing.ranks[which], books.lengths.groups[drawing.rows[which]], drafted, accepted)

    def finish(self, books: Books, slots: Ints, tokens: Ints) -> None:
        """Their answers are there."""
        self._tell(books, slots, tokens)
        for slot in slots.tolist():
            self._end(slot, done=True)

    def drop_row(self, books: Books, row: int) -> None:
        """No sample of it is wanted any more."""
        for rank in books.waiting.ranks_of(row):
            slot = books.seqs.slot_of.get(rank, -1)
            if 0 <= slot < self._known.capacity and self._known.rank[slot] == rank:
                self._end(slot, done=False)

    def _most(self, agenda: Agenda, books: Books, slots: Ints) -> Ints:
        """The most tokens to propose for each sample, within its limit."""
        if agenda.budget <= 0:
            return np.zeros_like(slots)
        seqs = books.seqs
        computed = sum(agenda.counts.values()) + len(agenda.refeed) + int(agenda.tip_counts.sum())
        groups, places = books.lengths.groups[seqs.row[slots]], seqs.n_out[slots]
        decoding = Decoding(seqs.rank[slots], groups, places, seqs.prompt_len[slots] + places, computed)
        room = np.minimum(seqs.max_out[slots] - places - 1, agenda.budget)
        return np.asarray(np.minimum(self.depth.most(decoding), np.maximum(room, 0)))

    def _tell(self, books: Books, slots: Ints, counts: Ints) -> None:
        """The drafter gets to know the samples in these slots and the first `counts` of their tokens."""
        seqs, known = books.seqs, self._known
        known.reserve(seqs.capacity)
        for slot in slots[known.rank[slots] != seqs.rank[slots]].tolist():
            row, known.rank[slot], known.told[slot] = seqs.row.item(slot), seqs.rank[slot], 0
            group = int(books.lengths.groups[row])
            self.drafter.start(seqs.rank.item(slot), row, group, books.requests.prompt(row))
            if self._draw_as is not None:
                self._draw_as(seqs.rank.item(slot), _rule_of(books, row, seqs.sample.item(slot)))
        more = counts - known.told[slots]
        some = more > 0
        if some.any():
            slots, more = slots[some], more[some]
            tokens = seqs.out[np.repeat(slots, more), runs(known.told[slots], more)]
            self.drafter.extend(seqs.rank[slots], tokens, np.append(0, np.cumsum(more)))
            known.told[slots] += more

    def _end(self, slot: int, *, done: bool) -> None:
        self.drafter.end(self._known.rank.item(slot), done=done)
        self._known.rank[slot] = -1


def _rule_of(books: Books, row: int, sample: int) -> DrawRule:
    """How a sample of a row draws."""
    r = books.requests
    return DrawRule(
        temperature=r.temperature.item(row),
        top_k=r.top_k.item(row),
        top_p=r.top_p.item(row),
        min_p=r.min_p.item(row),
        stream=r.stream.item(row),
        sample=sample,
    )

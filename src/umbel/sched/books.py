"""What is known of all samples and their KV: what the rules of a scheduler look at, and how samples start and leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.cache.branches import keep
from umbel.cache.tree import KVTree
from umbel.cost.lengths import LengthBook
from umbel.sched.agenda import Agenda
from umbel.sched.in_flight import InFlight
from umbel.sched.request_table import RequestTable
from umbel.sched.sequences import Sequences
from umbel.sched.waiting import Waiting

Ints = NDArray[np.int64]


class Victim(Protocol):
    """Chooses which of the running samples gives its pages up when there are too few."""

    def pick(self, seqs: Sequences, slots: Ints) -> int:
        """The slot of the sample that steps back, of these, which run and are in plan order."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sample that could start: its row, its path, what it had generated and lost before, and its limit. The first
    `shared` of the tokens that it generated stand in runs of the path, since it was forked."""

    row: int
    path: list[int]
    n_out: int
    losses: int
    limit: int
    shared: int = 0


@dataclass(slots=True)
class Books:
    """The KV tree, the samples that have started (`seqs`) and those that wait, the draws of steps under way, the rows,
    and what is known of the lengths of answers.

    `overflow` is the accepted probability that a future step needs more pages than there are, `victim` the rule by
    which samples are preempted, `step_cost` as in Policy. `preemptions` counts them; `evicted` are rows of which a
    sample ever was. `drafted_tokens` counts proposed tokens that were checked, `accepted_tokens` those that are part of
    answers; `forced_tokens` those that were certain and fed together. `gate`: whether a path may be computed further.
    """

    kv: KVTree
    seqs: Sequences
    waiting: Waiting
    in_flight: InFlight
    requests: RequestTable
    lengths: LengthBook
    victim: Victim
    overflow: float
    step_cost: float = 0.0
    preemptions: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    forced_tokens: int = 0
    evicted: set[int] = field(default_factory=set)
    gate: Callable[[Agenda, list[int]], bool] | None = None

    def runners(self, level: int | None) -> Ints:
        """Running slots in plan order, of rows of one priority (None: of all)."""
        slots = self.seqs.runners()
        return slots if level is None else slots[self.requests.priority[self.seqs.row[slots]] == level]

    def next_rank(self, level: int | None) -> int | None:
        """The rank whose turn it is, if its row is of this priority (None: of any)."""
        rank = self.waiting.first()
        alike = rank is None or level in (None, self.requests.priority.item(self.waiting.rows[rank]))
        return rank if alike else None

    def candidate(self, rank: int) -> Candidate:
        """The sample that waits with this rank."""
        slot, row = self.seqs.slot_of.get(rank, -1), self.waiting.rows[rank]
        limit = self.requests.limit.item(row)
        if slot < 0:
            return Candidate(row, self.kv.path(self.kv.leaf.item(row)), 0, 0, limit)
        tip, seqs = self.seqs.tip.item(slot), self.seqs
        path, shared = self.kv.path(self.kv.parent.item(tip)), self.kv.start.item(tip) - seqs.prompt_len.item(slot)
        return Candidate(row, path, seqs.n_out.item(slot), seqs.losses.item(slot), limit, shared)

    def start(self, rank: int, path: list[int] | None = None) -> int:
        """The sample whose turn it is runs, with its path pinned; returns its slot, the old one if it was preempted."""
        seqs, kv, slot = self.seqs, self.kv, self.seqs.slot_of.get(rank, -1)
        self.waiting.take(rank)
        if slot < 0:
            row = self.waiting.rows[rank]
            leaf = kv.leaf.item(row)
            limit = self.requests.limit.item(row)
            slot = seqs.start(rank, row, self.waiting.samples[rank], self.requests.prompt_len(row), limit)
            seqs.tip[slot] = kv.grow(leaf, slot, self.requests.drawn.item(row))
        kv.enter(seqs.tip.item(slot), path)
        seqs.resume(slot)
        return slot

    def give_way(self, level: int | None = None) -> bool:
        """The victim, one of the least urgent that run, gives up the pages of its tip and waits again. False where no
        one is less urgent than `level` (None: where all work would stop without it)."""
        slots = self.seqs.runners()
        priority = self.requests.priority[self.seqs.row[slots]]
        if len(slots) <= 1 if level is None else not (priority > level).any():
            return False
        slot = self.victim.pick(self.seqs, slots[priority == priority.max()])
        self.kv.leave(self.seqs.tip.item(slot), done=False)
        self.seqs.pause(slot)
        self.waiting.put_back(self.seqs.rank.item(slot))
        self.preemptions += 1
        self.evicted.add(self.seqs.row.item(slot))
        return True

    def leave(self, slot: int) -> None:
        """A sample that has started goes, from where it runs or from where it waits to go on."""
        tip = self.seqs.tip.item(slot)
        if self.seqs.running[slot]:
            self.kv.leave(tip, done=True)
        else:
            self.waiting.drop(self.seqs.rank.item(slot))
            self.kv.abandon(tip)
        self.seqs.end(slot)

    def finish(self, slot: int, tokens: int) -> None:
        """A sample is done with its first `tokens` tokens. Where arriving rows look for their beginnings, what its tip
        holds of them stays, until its pages are wanted."""
        if self.kv.index is None or not self.seqs.running[slot]:
            self.leave(slot)
            return
        tip = self.seqs.tip.item(slot)
        begin = self.kv.start.item(tip) - self.seqs.prompt_len.item(slot)
        self.kv.cut(np.array([tip]), np.minimum(tokens - begin, self.kv.held[[tip]]))
        keep(self.kv, tip, self.seqs.out[slot, begin:tokens])
        self.seqs.end(slot)

    def drop_row(self, row: int) -> None:
        """Abandon every sample of a row, in whatever state it is."""
        self.kv.scored.drop_row(row)
        path = self.kv.path(self.kv.leaf.item(row))
        for rank in self.waiting.ranks_of(row):
            slot = self.seqs.slot_of.get(rank)
            if slot is not None:
                self.leave(slot)
            elif self.waiting.drop(rank):
                self.kv.skip(path)

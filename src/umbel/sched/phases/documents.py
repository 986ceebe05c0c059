"""The phase of documents: each is computed once, as if nothing stood before it, and copied to every place where a
prompt has it (TurboRAG, 2410.07590).

A document in a prompt is a run of its own in the tree. The first one of its kind is computed in the pages of that run,
as a prompt that begins with it would be (ir/detached.py). When it is whole it is copied to where documents are kept,
and its keys are turned to where the run begins; runs with an equal document get theirs from there. So the bytes of a
run are those of the document, turned once, whichever row was first and however it was cut into chunks. What
stands behind documents is computed when all of its prompt's are there.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.errors import UsageError
from umbel.sched.agenda import Agenda
from umbel.sched.books import Books
from umbel.sched.phases.base import Phase
from umbel.sched.phases.reload import slots_of, tokens_of
from umbel.sched.policies.lines import Lines
from umbel.sched.scheduler import Scheduler

Ints = NDArray[np.int64]
Key = tuple[int, bytes]  # the scope of a document, and its tokens


class Copies(Protocol):
    """Keys and values of documents, each as if it stood at position 0. What is not there any more is computed again."""

    def __contains__(self, key: Key) -> bool: ...

    def keep(self, key: Key, slots: Ints, position: int) -> None:
        """A document was computed in these KV slots: keep it, and turn the keys that stand there to where it begins."""
        ...

    def put(self, key: Key, slots: Ints, position: int) -> None:
        """Write a document that is there into these slots, for where it begins."""
        ...


class PlaceDocuments(Phase):
    """Before a step's tokens are given out: documents that are whole are kept, and turned to their places. `is_ready`
    is the gate that paths have to pass."""

    def __init__(self, books: Books, copies: Copies):
        self.books, self.copies = books, copies
        self._makers: dict[Key, int] = {}  # the run in which each document that is under way is computed

    def fill(self, agenda: Agenda, books: Books) -> None:
        """Keep documents that the steps so far completed; one whose run was given up may be computed elsewhere."""
        kv = books.kv
        for key, node in list(self._makers.items()):
            held = kv.held.item(node)
            is_whole = kv.tokens.document.item(node) and held == kv.length.item(node) and self._key(node) == key
            if is_whole:
                self.copies.keep(key, self._slots(node), kv.start.item(node))
            if is_whole or not kv.users[node]:
                del self._makers[key]

    def is_ready(self, agenda: Agenda, path: list[int]) -> bool:
        """Whether all documents of a path stand in their places; what can be done about it is done or put on the
        agenda."""
        kv, ready = self.books.kv, True
        for node in path:
            lacking = kv.length.item(node) - kv.held.item(node)
            if kv.tokens.document.item(node) and lacking:
                ready = self._make(agenda, node, lacking) and ready
        return ready

    def _make(self, agenda: Agenda, node: int, lacking: int) -> bool:
        """Copy a document into its run, or begin to compute it there; whether it is there now."""
        if node in agenda.counts:
            return False
        kv, key = self.books.kv, self._key(node)
        if key in self.copies:
            self.copies.put(key, self._slots(node), kv.start.item(node))
            kv.held[node] = kv.seen[node] = kv.length[node]
            self.books.waiting.cached(node)
            return True
        maker = self._makers.setdefault(key, node)
        if not kv.users[maker]:  # it stepped back
            maker = self._makers[key] = node
        if maker == node and agenda.budget:
            agenda.counts[node] = min(lacking, agenda.budget)
            agenda.budget -= agenda.counts[node]
        return False

    def _key(self, node: int) -> Key:
        kv = self.books.kv
        return kv.scope.item(node), tokens_of(kv, [node]).tobytes()

    def _slots(self, node: int) -> Ints:
        kv = self.books.kv
        begin = kv.start.item(node)
        return slots_of(kv, [node], begin, begin + kv.length.item(node))


def start_placing(scheduler: Scheduler, copies: Copies) -> PlaceDocuments:
    """From now on, before any row is added, documents are computed once. Raises UsageError where the rules of the
    scheduler find beginnings by their tokens alone, or put samples of some rows before others."""
    kv, policy = scheduler.kv, scheduler.policy
    if isinstance(scheduler.waiting, Lines) or kv.index is not None or kv.idle.keep.retains:
        rules = f"queue={policy.queue!r}, keep={policy.keep!r}"
        raise UsageError(f"technique: documents cannot be computed apart with {rules}; run the rows as a job")
    phase = PlaceDocuments(scheduler.books, copies)
    scheduler.books.gate = phase.is_ready
    scheduler.phases = [phase, *scheduler.phases]
    return phase

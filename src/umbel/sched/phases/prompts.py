"""The phase of prompts: samples that cannot decode yet go on with what is above their tips, in pieces if need be
(SARATHI, arXiv 2308.16369)."""

from __future__ import annotations

import numpy as np

from umbel.sched.agenda import Agenda
from umbel.sched.books import Books
from umbel.sched.phases.base import Phase


class Prompts(Phase):
    """Running samples that are not primed compute what their prompts still lack."""

    def fill(self, agenda: Agenda, books: Books) -> None:
        """Put the next tokens of prompts on the agenda, in plan order."""
        slots = books.runners(agenda.level)
        for slot in slots[~books.seqs.primed[slots]].tolist():
            prime(agenda, books, slot, books.kv.path(books.kv.parent.item(books.seqs.tip.item(slot))))


def prime(agenda: Agenda, books: Books, slot: int, path: list[int]) -> None:
    """Move one sample on: its path top down, then the first token of its tip or the tip that it lost."""
    kv, parent = books.kv, path[-1]
    if books.gate is not None and not books.gate(agenda, path):
        return
    tip = books.seqs.tip.item(slot)
    for node in path:
        lacking = kv.length.item(node) - kv.held.item(node)
        if lacking and node not in agenda.counts:
            if agenda.budget == 0:
                return
            agenda.counts[node] = min(lacking, agenda.budget)
            agenda.budget -= agenda.counts[node]
        if lacking and agenda.counts[node] < lacking:
            return
    if kv.length[tip]:
        if len(books.in_flight.known(np.array([slot]))):
            _rebuild_tip(agenda, books, slot, tip)
        return
    if parent not in agenda.counts and parent not in agenda.refeed:
        if agenda.budget == 0:
            return
        agenda.refeed[parent] = None
        agenda.budget -= 1
    agenda.firsts.append(slot)


def _rebuild_tip(agenda: Agenda, books: Books, slot: int, tip: int) -> None:
    """Compute a preempted tip again; from then on the sample is like any other."""
    kv, at = books.kv, np.array([tip])
    tokens = min(agenda.budget, kv.length.item(tip), kv.edge.item(tip) - kv.start.item(tip))
    short = kv.missing(at, np.array([tokens]))
    if tokens == 0 or not kv.make_room(int(short.sum())):
        return
    kv.take(at, short)
    books.seqs.primed[slot] = True
    agenda.add_tip(slot, tokens)

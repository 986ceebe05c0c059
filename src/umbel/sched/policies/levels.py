"""Rows of several priorities in one step: the most urgent ones get what they need, and the others what that leaves.

A row that is less urgent yields by the next step. It loses its turn where a step has too few tokens for all, and its
pages where the pool is too small for all, to go on from the tokens that it has once there is room again. As with QLLM
(arXiv 2503.09304), but between steps and not between the layers of one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from umbel.ir.sampled import SampledTokens
from umbel.sched.agenda import Agenda
from umbel.sched.books import Books, Candidate
from umbel.sched.phases.admit import Admit
from umbel.sched.phases.base import Ints, Phase
from umbel.sched.policies.lines import Lines


class AdmitUrgent(Admit):
    """Starts samples as the rule of admission says, for which less urgent ones give their pages and places up."""

    def may_start(self, books: Books, sample: Candidate) -> bool:
        """Whether a sample may start, after as many of those that are less urgent have stepped back as it takes."""
        level, seqs = books.requests.priority.item(sample.row), books.seqs
        if (books.requests.priority[seqs.row[seqs.runners()]] > level).any():
            self.admission.renew()  # what was refused was less urgent
        while not super().may_start(books, sample):
            if not books.give_way(level):
                return False
            self.admission.renew()
        return True


class Levels(Phase):
    """Runs `phases` for one priority after the other, the lowest first."""

    def __init__(self, phases: Sequence[Phase], pace: object = None):  # which some rules look at themselves
        self.phases = phases

    def fill(self, agenda: Agenda, books: Books) -> None:
        """Put work on the agenda, until all was looked at and no one gave way for nothing."""
        while True:
            before = books.preemptions
            self.fill_once(agenda, books)
            if not agenda.empty or books.preemptions == before:
                return

    def learn(self, books: Books, sampled: SampledTokens, keep: Ints) -> None:
        """A step is done."""
        assert isinstance(books.waiting, Lines)
        books.waiting.learn(sampled.drawing.rows, keep)
        for phase in self.phases:
            phase.learn(books, sampled, keep)

    def finish(self, books: Books, slots: Ints, tokens: Ints) -> None:
        """Samples are done."""
        for phase in self.phases:
            phase.finish(books, slots, tokens)

    def drop_row(self, books: Books, row: int) -> None:
        """A row is abandoned."""
        for phase in self.phases:
            phase.drop_row(books, row)

    def fill_once(self, agenda: Agenda, books: Books) -> None:
        """Look at every priority once, with every phase."""
        self.fill_with(self.phases, agenda, books)

    @staticmethod
    def fill_with(phases: Sequence[Phase], agenda: Agenda, books: Books) -> None:
        """Run some phases for one priority after the other."""
        for level in levels_of(books):
            agenda.level = level
            for phase in phases:
                phase.fill(agenda, books)


def levels_of(books: Books) -> list[int | None]:
    """Priorities of samples that run or wait, ascending; None alone, for all samples, where they are alike."""
    assert isinstance(books.waiting, Lines)
    running = np.unique(books.requests.priority[books.seqs.row[books.seqs.runners()]]).tolist()
    levels = sorted({*running, *books.waiting.levels()})
    return [None] if len(levels) <= 1 else [*levels]

"""No answer that somebody watches stalls for others' prompts: the seconds of a step are kept below a target.

Sarathi-Serve (arXiv 2403.02310): every sample that decodes does so in every step, and prompts get what a budget leaves.
There the budget is a number of tokens, found by a profile; here it is what the price list says of this very step, with
the context that each sample reads. Less urgent samples get what sched.policies.leftover says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import inf

import numpy as np
from numpy.typing import NDArray

from umbel.cost.live import Prices
from umbel.cost.load import Load
from umbel.sched.agenda import Agenda
from umbel.sched.books import Books
from umbel.sched.phases.base import Phase
from umbel.sched.phases.decode import Decode
from umbel.sched.phases.prompts import Prompts, prime
from umbel.sched.policies.admission import Admission
from umbel.sched.policies.leftover import is_beneath, seconds_for, so_far
from umbel.sched.policies.levels import AdmitUrgent, Levels
from umbel.sched.policies.lines import Lines

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LEAST = 16  # tokens of prompts that a step takes though the samples that decode are over the target by themselves


class StallFree(Levels):
    """Decodes first, then prompts, level by level, each as far as the pace of the policy allows."""


@dataclass(frozen=True, slots=True)
class StepPace:
    """Steps of at most `target` seconds by these `prices`, while a sample decodes whose row streams (None: of what is
    left for rows that are less urgent, and as many as it takes for the others)."""

    prices: Prices
    target: float | None

    def binds(self, agenda: Agenda, books: Books) -> bool:
        """Whether the rows that are looked at now may not have all that they want."""
        return (self.target is not None or is_beneath(agenda, books)) and is_watched(books)

    def prompt(self, agenda: Agenda, books: Books, depth: int) -> int:
        """The most tokens that the step may have of one more prompt, of which `depth` are computed already."""
        if not self.binds(agenda, books):
            return agenda.budget
        count = np.arange(agenda.budget + 1.0)
        one = (count > 0).astype(float)
        most = self._most(agenda, books, count, one, depth + (count + 1) / 2, one * depth + count)
        return most if most or agenda.counts or is_beneath(agenda, books) else min(LEAST, agenda.budget)

    def decodes(self, agenda: Agenda, books: Books) -> int:
        """How many more of the samples that are looked at now may decode."""
        if agenda.empty or not self.binds(agenda, books):
            return agenda.budget
        slots = books.runners(agenda.level)
        slots = slots[books.seqs.primed[slots]]
        contexts = books.seqs.prompt_len[slots] + books.seqs.n_out[slots]
        count = np.arange(min(len(contexts), agenda.budget) + 1.0)
        read = np.append(0.0, np.cumsum(contexts))[: len(count)]
        return self._most(agenda, books, count, count, read / np.maximum(count, 1), read)

    def _most(self, agenda: Agenda, books: Books, count: Floats, samples: Floats, depth: Floats, read: Floats) -> int:
        """The most tokens of `count` (ascending) for which the step is as short as it has to be: with so many `samples`
        drawn from them, a mean `depth` of what each sees, and so many tokens of KV `read` for them."""
        self.prices.renewed()
        allowed = seconds_for(agenda, books, self.prices, self.target)
        tokens, drawn, pairs, kv_read = so_far(agenda, books)
        draws = drawn + samples
        load = Load(np.ones(len(count)), tokens + count, draws, pairs + count * depth, kv_read + read, draws)
        over = self.prices.each(load) > allowed
        return int(count[max(int(over.argmax()) - 1, 0)]) if over.any() else int(count[-1])


class DecodeInPace(Decode):
    """Of samples that are less urgent than others of the step, as many decode as its pace allows."""

    def __init__(self, pace: StepPace | None = None):
        self.pace = pace

    def fill(self, agenda: Agenda, books: Books) -> None:
        """Put the tokens that tips lack on the agenda."""
        spare = agenda.budget
        if self.pace is not None:
            agenda.budget = self.pace.decodes(agenda, books)
        allowed = agenda.budget
        super().fill(agenda, books)
        agenda.budget += spare - allowed


class PromptsInTurn(Prompts):
    """Prompts that are under way go on in the order in which samples wait, in the pace of the step; those behind the
    one whose turn it is to start are `left` until it has."""

    def __init__(self, pace: StepPace | None = None):
        self.pace = pace
        self.left: list[int] = []

    def fill(self, agenda: Agenda, books: Books) -> None:
        """Put the next tokens of prompts on the agenda."""
        slots, seqs, waiting = books.runners(agenda.level), books.seqs, books.waiting
        assert isinstance(waiting, Lines)
        key = {slot: waiting.key(seqs.row.item(slot)) for slot in slots[~seqs.primed[slots]].tolist()}
        rank = books.next_rank(agenda.level)
        first = inf if rank is None else waiting.key(waiting.rows[rank])
        self.left = [slot for slot in sorted(key, key=key.__getitem__) if key[slot] > first]
        self.go_on(agenda, books, [slot for slot in sorted(key, key=key.__getitem__) if key[slot] <= first])

    def go_on(self, agenda: Agenda, books: Books, slots: list[int]) -> None:
        """Put the next tokens of these on the agenda."""
        for slot in slots:
            path = books.kv.path(books.kv.parent.item(books.seqs.tip.item(slot)))
            prime_in_pace(self.pace, agenda, books, slot, path)


class PromptsLeft(Phase):
    """The prompts that were left behind one that was to start."""

    def __init__(self, prompts: PromptsInTurn):
        self.prompts = prompts

    def fill(self, agenda: Agenda, books: Books) -> None:
        """Put the next tokens of those on the agenda."""
        self.prompts.go_on(agenda, books, self.prompts.left)


class AdmitInPace(AdmitUrgent):
    """Starts samples while the pace of the step leaves tokens for their prompts."""

    def __init__(self, admission: Admission, max_running: int | None = None, pace: StepPace | None = None):
        super().__init__(admission, max_running)
        self.prime = partial(prime_in_pace, pace)


def prime_in_pace(pace: StepPace | None, agenda: Agenda, books: Books, slot: int, path: list[int]) -> None:
    """Move one sample on, by as many tokens as the pace of the step allows."""
    spare = agenda.budget
    if pace is not None:
        agenda.budget = pace.prompt(agenda, books, int(books.kv.held[path].sum()))
    allowed = agenda.budget
    prime(agenda, books, slot, path)
    # What the pace does not allow this one, it allows no other prompt: none is begun before the next step.
    agenda.budget = spare - (allowed - agenda.budget) if agenda.budget else 0


def is_watched(books: Books) -> bool:
    """Whether a sample decodes whose row wants its tokens as they come."""
    seqs = books.seqs
    slots = seqs.runners()
    return bool((seqs.primed[slots] & books.requests.streamed[seqs.row[slots]]).any())

"""What is left of a step for rows that are less urgent than one somebody reads along with.

Batches run beneath requests: their rows are admitted to a step by what they add to its seconds, not to its tokens.
Where there is a target between two tokens, the step may last that long. Without one, it may last a tenth longer than
the urgent rows alone make it, so that a stream hardly feels what runs beside it.
"""

from __future__ import annotations

from math import inf

import numpy as np

from umbel.cost.live import Prices
from umbel.cost.load import Load
from umbel.sched.agenda import Agenda
from umbel.sched.books import Books

SHARE = 0.1  # of the seconds that a step takes without them


def seconds_for(agenda: Agenda, books: Books, prices: Prices, target: float | None) -> float:
    """The seconds that the step may take, as far as the rows that are looked at now decide it."""
    if target is not None:
        return target
    if not is_beneath(agenda, books):
        return inf
    if agenda.plain is None:
        agenda.plain = float(prices.each(load_of(agenda, books))[0])
    return agenda.plain * (1 + SHARE)


def is_beneath(agenda: Agenda, books: Books) -> bool:
    """Whether samples decode in the step that are more urgent than those that are looked at now."""
    priority = books.requests.priority[books.seqs.row[agenda.slots]]
    return agenda.level is not None and bool((priority < agenda.level).any())


def load_of(agenda: Agenda, books: Books) -> Load:
    """What the step does so far; runs that samples share are read for each of them."""
    tokens, drawn, pairs, kv_read = so_far(agenda, books)
    return Load.one(tokens, drawn, pairs, kv_read).drawing(1.0)


def so_far(agenda: Agenda, books: Books) -> tuple[float, float, float, float]:
    """What is on the agenda: tokens, samples that are drawn, pairs of a query and a key, tokens of KV that are read.
    Runs that samples share are counted for each of them."""
    kv, slots, fed = books.kv, agenda.slots, agenda.tip_counts
    tips = books.seqs.tip[slots]
    context = kv.start[tips] + kv.held[tips] + fed
    nodes, counts = (np.fromiter(found, np.int64) for found in (agenda.counts, agenda.counts.values()))
    above = kv.start[nodes] + kv.held[nodes]
    tokens = int(fed.sum() + counts.sum()) + len(agenda.refeed)
    pairs = float((context * fed).sum() + (counts * (above + (counts + 1) / 2)).sum())
    return tokens, len(slots) + len(agenda.firsts), pairs, float(context.sum() + (above + counts).sum())

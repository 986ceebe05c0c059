"""How proposed tokens come onto an agenda: for which samples, and as many as budget and pages allow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.ir.columns import runs
from umbel.sched.agenda import Agenda
from umbel.sched.books import Books
from umbel.spec.base import Drafts

Ints = NDArray[np.int64]


def drawing_of(agenda: Agenda, books: Books, *, lockstep: bool) -> Ints:
    """Which samples of the agenda draw from their tips, by rank: those of rows that are watched in lockstep, or of the
    others."""
    seqs, kv = books.seqs, books.kv
    tips = seqs.tip[agenda.slots]
    draws = kv.held[tips] + agenda.tip_counts == kv.length[tips]
    if lockstep or books.requests.any_lockstep:
        draws &= books.requests.lockstep[seqs.row[agenda.slots]] == lockstep
    which = np.flatnonzero(draws)
    ranks = seqs.rank[agenda.slots[which]]  # one that has lost its tip stands behind those that kept theirs
    return which if (ranks[1:] > ranks[:-1]).all() else which[np.argsort(ranks)]


def put(agenda: Agenda, books: Books, which: Ints, drafts: Drafts, counts: Ints, *, ahead: bool) -> None:
    """Put the first `counts` tokens of the drafts of samples `which` on the agenda, as far as there is budget and room;
    `ahead`: the next step is decided before these tokens are checked."""
    if not counts.any():
        return
    seqs, kv, slots = books.seqs, books.kv, agenda.slots[which]
    tips, fed = seqs.tip[slots], agenda.tip_counts[which]
    counts = _shared(counts, agenda.budget)
    counts = np.minimum(counts, kv.edge[tips] - kv.start[tips] - kv.held[tips] - fed)
    missing = kv.missing(tips, fed + counts)
    # Every running sample may want a page in a step that is decided ahead.
    if int(missing.sum()) + (seqs.n_running if ahead else 0) > kv.pool.free:
        held = kv.n_pages[tips] * kv.pool.page_size
        counts = np.minimum(counts, held - kv.held[tips] - fed)
        missing = np.zeros_like(counts)
    if not counts.any():
        return
    kv.take(tips, missing)
    seqs.propose(slots, counts, drafts.tokens[runs(drafts.begin[:-1], counts)])
    kv.extend(tips, counts)
    if agenda.drafted is None:
        agenda.drafted = np.zeros_like(agenda.slots)
    agenda.drafted[which] = counts
    agenda.tip_counts = agenda.tip_counts.copy()
    agenda.tip_counts[which] += counts
    agenda.budget -= int(counts.sum())


def _shared(wanted: Ints, budget: int) -> Ints:
    """What each gets of a budget that may be too small: all the same, as far as they want it."""
    level = int(wanted.max(initial=0))
    while int(np.minimum(wanted, level).sum()) > budget:
        level -= 1
    return np.minimum(wanted, level)

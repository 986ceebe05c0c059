"""What the rows of a loop have written so far, and which of them end soon."""

from __future__ import annotations

import numpy as np

from umbel.engine.loop import Loop
from umbel.ir.resumable import Resumable

RECENT_STEPS = 8  # whose pace is expected of the next ones


def unfinished(loop: Loop) -> dict[int, Resumable]:
    """The rows that have written something and are not done, with what they are taken up from. No step may be under
    way."""
    seqs = loop.scheduler.seqs
    slots = [slot for slot in seqs.slot_of.values() if seqs.n_out.item(slot)]
    rows = {*seqs.row[slots].tolist(), *loop.rows.begun()}
    return {row: loop.steering.resumable(row, loop.rows.partial(row)) for row in sorted(rows)}


def ending_within(loop: Loop, seconds: float) -> set[int]:
    """The rows that are expected to end within so many seconds if steps take as long as the last ones: all samples of
    them run, and each has so few tokens left to its limit, or to the length that is expected of it."""
    scheduler, paces = loop.scheduler, loop.meter.seconds()
    seqs, slots = scheduler.seqs, scheduler.seqs.runners()
    if seconds <= 0.0 or not len(slots) or not len(paces):
        return set()
    groups, made, most = scheduler.lengths.groups[seqs.row[slots]], seqs.n_out[slots], seqs.max_out[slots]
    left = np.zeros(len(slots))
    for group in np.unique(groups).tolist():
        of = groups == group
        left[of] = scheduler.lengths.curve(group).mean(most[of], made[of]) - made[of]
    near = (left * paces[-RECENT_STEPS:].min() <= seconds) & seqs.primed[slots]
    ranks = set(seqs.rank[slots[near]].tolist())
    rows = np.unique(seqs.row[slots[near]]).tolist()
    return {row for row in rows if all(rank in ranks or _ended(loop, rank) for rank in scheduler.waiting.ranks_of(row))}


def _ended(loop: Loop, rank: int) -> bool:
    return rank not in loop.scheduler.seqs.slot_of and not loop.scheduler.waiting.waits(rank)


def leave_to_end(loop: Loop, rows: set[int]) -> None:
    """Abandon all rows that run but some, and let no other start."""
    running = loop.scheduler.seqs.row[loop.scheduler.seqs.runners()]
    loop.release([row for row in np.unique(running).tolist() if row not in rows])

"""Rows of which a part of the prompt is left out: the tree holds the tokens that stay, side by side, and steps get the
positions that these and the tokens behind them had in the whole prompt.

    prompt      0 .. 127 | 128 .. 159 | 160 .. 191 | 192 .. 199      the third part is left out
    tree        0 .. 127 | 128 .. 159 |     -      | 160 .. 167      places; angles are made of 192 .. 199

Only runs that one row reads have gaps, so that what others share is what it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from umbel.cache.memories import NEVER, Unpin
from umbel.cache.tree import KVTree
from umbel.errors import UsageError
from umbel.ir.cut_workload import CutWorkload
from umbel.ir.kept import Shortened
from umbel.ir.step import Step
from umbel.ir.workload import Workload
from umbel.sched.policies.lines import Lines
from umbel.sched.scheduler import Scheduler
from umbel.sched.sequences import Sequences

Ints = NDArray[np.int64]


class Gaps:
    """Implements `Memories` of a tree, whose samples stand in `seqs`: nothing is forgotten, and positions have gaps."""

    def __init__(self, tree: KVTree, seqs: Sequences):
        self.tree, self.seqs = tree, seqs
        self._shift = np.zeros(0, np.int64)  # per row: tokens of its prompt that are left out
        self._at: dict[int, Ints] = {}  # positions of the tokens of rows that have gaps

    def join(self, first: int, workload: Workload) -> None:
        """Implement `Memories.join`."""
        shift = np.zeros(len(workload), np.int64)
        if isinstance(workload, CutWorkload) and workload.whole is not None:
            shift = workload.whole - np.diff(workload.offsets)
            self._at |= {first + row: at for row, at in enumerate(workload.at) if at is not None}
        self._shift = np.concatenate([self._shift[:first], shift])

    def first_edge(self, start: int) -> int:
        """Implement `Memories.first_edge`."""
        return NEVER

    def rejoin(self, tip: int) -> Unpin:
        """Implement `Memories.rejoin`."""
        return self.tree.unpin

    def pages_beside(self, path: list[int]) -> int:
        """Implement `Memories.pages_beside`."""
        return 0

    def mark(self, step: Step, nodes: Ints) -> Step:
        """Implement `Memories.mark`."""
        slots = self.seqs.runners()
        rows = self.seqs.row[slots]
        cut = self._shift[rows] > 0
        if not cut.any():
            return step
        tree, counts = self.tree, step.row_end - step.row_begin
        shift, rows = np.zeros(tree.n_nodes, np.int64), rows[cut]
        for tip, row in zip(self.seqs.tip[slots[cut]].tolist(), rows.tolist(), strict=True):
            for node in self._behind(tip, tree.leaf.item(row)):
                shift[node] = self._shift[row]
        positions = step.positions + np.repeat(shift[nodes], counts)
        fed = dict(zip(nodes[counts > 0].tolist(), np.flatnonzero(counts > 0).tolist(), strict=True))
        for row in set(rows.tolist()):
            if (i := fed.get(tree.leaf.item(row))) is not None:
                own = slice(step.row_begin.item(i), step.row_end.item(i))
                positions[own] = self._at[row][step.positions[own]]
        return replace(step, kept=Shortened(positions, ()))

    def _behind(self, tip: int, leaf: int) -> Iterator[int]:
        """The nodes of an answer, whose prompt ends in `leaf`, from its tip up."""
        while tip != leaf:
            yield tip
            tip = self.tree.parent.item(tip)


def start_gaps(scheduler: Scheduler, asked: str) -> None:
    """From now on, before any row is added, rows may have gaps. Raises UsageError where the rules of the scheduler keep
    runs for other rows."""
    kv, policy = scheduler.kv, scheduler.policy
    if isinstance(scheduler.waiting, Lines) or kv.index is not None or kv.idle.keep.retains:
        rules = f"queue={policy.queue!r}, keep={policy.keep!r}"
        raise UsageError(f"technique={asked!r}: not with {rules}, as others would find prompts with gaps")
    kv.apart = Gaps(kv, scheduler.seqs)

"""A step and what it was made of, so that the next one of the same samples is made from it: while they go on decoding,
only what a further token changes is worked out, and the cost of a step hardly grows with its samples."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from umbel.cache.tree import KVTree
from umbel.ir.step import Step
from umbel.sched.agenda import Agenda
from umbel.sched.sequences import Sequences

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StepLayout:
    """A step with what it was made of: its `nodes` in the tree, the samples on the agenda that extend their tips
    (`slots`) and where these tips stand among the nodes (`at`), the same samples as the step has them (`fed`), and the
    tree's counts of changes."""

    step: Step
    nodes: Ints
    slots: Ints
    at: Ints
    fed: Ints
    changes: int
    page_changes: int

    def fits(self, agenda: Agenda, tree: KVTree) -> bool:
        """Whether an agenda that only decodes has the samples of this step, above the same nodes."""
        return tree.changes == self.changes and np.array_equal(agenda.slots, self.slots)

    def again(self, seqs: Sequences, tree: KVTree) -> StepLayout:
        """The step after this one, if both only decode the same samples: each has one token more."""
        step, slots = self.step, self.fed
        positions = step.positions + 1
        end = step.end.copy()
        end[self.at] += 1
        pages, page_begin = step.pages, step.page_begin
        if self.page_changes != tree.page_changes:
            pages, page_begin = tree.table.gather(self.nodes)
        drawn = step.sampling
        now = Step(
            tokens=seqs.out[slots, positions - seqs.prompt_len[slots]].astype(np.int64),
            positions=positions,
            fresh=step.fresh,
            parent=step.parent,
            start=step.start,
            end=end,
            row_begin=step.row_begin,
            row_end=step.row_end,
            below_end=step.below_end,
            pages=pages,
            page_begin=page_begin,
            page_size=step.page_size,
            sampling=replace(drawn, positions=drawn.positions + 1),
        )
        return StepLayout(now, self.nodes, self.slots, self.at, slots, self.changes, tree.page_changes)


def only_decodes(agenda: Agenda, tips: Ints, tree: KVTree) -> bool:
    """Whether all that the agenda has is tips that grow by the one token which each lacks."""
    if agenda.counts or agenda.refeed or agenda.firsts:
        return False
    lacking = tree.length[tips] - tree.held[tips]
    return bool((lacking == 1).all()) and bool((agenda.tip_counts == 1).all())

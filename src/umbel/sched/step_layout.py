"""A step and what it was made of, so that the next one of the same samples is made from it: while they go on decoding,
only what further tokens change is worked out, and the cost of a step hardly grows with its samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from umbel.cache.memories import DRAWN_WHOLE
from umbel.cache.tree import KVTree
from umbel.ir.columns import runs
from umbel.ir.step import Sampling, Step
from umbel.ir.workload import ADAPTER, WHOLE_PROMPTS
from umbel.sched.agenda import Agenda
from umbel.sched.sequences import Sequences

Ints = NDArray[np.int64]
Draws = Callable[[Ints, Ints, Ints], Sampling]  # slots, the rows that are drawn from, positions of the new tokens


@dataclass(frozen=True, slots=True)
class StepLayout:
    """A step with what it was made of: its `nodes` in the tree and where those below each of them end (`stop`), the
    samples on the agenda that extend their tips (`slots`), where these tips stand among the nodes (`at`), the order of
    the samples by that (`order`), and the tree's counts of changes. `plain`: each tip grew by one token."""

    step: Step
    nodes: Ints
    stop: Ints
    slots: Ints
    at: Ints
    order: Ints
    plain: bool
    changes: int
    cuts: int
    page_changes: int

    def fits(self, agenda: Agenda, tree: KVTree) -> bool:
        """Whether an agenda that only decodes has the samples of this step, above the same nodes."""
        return tree.changes == self.changes and np.array_equal(agenda.slots, self.slots)

    def follows(self, agenda: Agenda, tree: KVTree) -> bool:
        """Whether each tip has one token more on an agenda that fits, and nothing else is different."""
        return self.plain and agenda.drafted is None and tree.cuts == self.cuts

    def again(self, seqs: Sequences, tree: KVTree) -> StepLayout:
        """The step after this one, if it follows."""
        step, slots = self.step, self.slots[self.order]
        positions = step.positions + 1
        end = step.end.copy()
        end[self.at] += 1
        pages, page_begin = self._pages(tree)
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
            scope=step.scope,
            answers=step.answers,
            whole=step.whole,
            sampling=replace(drawn, positions=drawn.positions + 1),
        )
        return self._with(now, tree, plain=True)

    def grown(self, agenda: Agenda, seqs: Sequences, tree: KVTree, draws: Draws) -> StepLayout:
        """The step of an agenda that fits, whose tips grow by one token or several."""
        step, counts = self.step, np.zeros_like(self.nodes)
        counts[self.at] = agenda.tip_counts
        reach = np.append(0, np.cumsum(counts))
        tips = seqs.tip[agenda.slots]
        first = tree.start[tips] + tree.held[tips]
        end = step.end.copy()
        end[self.at] = first + agenda.tip_counts
        slots, each = self.slots[self.order], agenda.tip_counts[self.order]
        positions, prompt = runs(first[self.order], each), np.repeat(seqs.prompt_len[slots], each)
        pages, page_begin = self._pages(tree)
        own = np.repeat(agenda.slots, agenda.tip_counts)
        now = Step(
            tokens=seqs.out[np.repeat(slots, each), positions - prompt].astype(np.int64),
            positions=positions,
            fresh=np.ones(len(positions), bool),
            parent=step.parent,
            start=step.start,
            end=end,
            row_begin=reach[:-1],
            row_end=reach[1:],
            below_end=reach[self.stop],
            pages=pages,
            page_begin=page_begin,
            page_size=step.page_size,
            scope=step.scope,
            answers=step.answers,
            whole=step.whole,
            sampling=draws(own, runs(reach[self.at], agenda.tip_counts), runs(first + 1, agenda.tip_counts)),
        )
        return self._with(now, tree, plain=agenda.drafted is None)

    def _pages(self, tree: KVTree) -> tuple[Ints, Ints]:
        """The pages of the nodes, as they are by now."""
        if self.page_changes != tree.page_changes:
            return tree.table.gather(self.nodes)
        return self.step.pages, self.step.page_begin

    def _with(self, step: Step, tree: KVTree, *, plain: bool) -> StepLayout:
        """The layout of another step of the same nodes and samples."""
        kept = self.nodes, self.stop, self.slots, self.at, self.order
        return StepLayout(step, *kept, plain, tree.changes, tree.cuts, tree.page_changes)


def only_decodes(agenda: Agenda, tips: Ints, tree: KVTree) -> bool:
    """Whether all that the agenda has is tips that grow by the one token which each lacks, and those proposed."""
    if agenda.counts or agenda.refeed or agenda.firsts or agenda.passing is not None:
        return False
    lacking, counts = tree.length[tips] - tree.held[tips], agenda.tip_counts
    known = counts if agenda.drafted is None else counts - agenda.drafted
    return bool((known == 1).all()) and bool((lacking == counts).all())


def scopes_of(tree: KVTree, nodes: Ints) -> Ints:
    """The adapter of each of some nodes, which stand depth-first with their roots."""
    return _of_roots(tree, nodes) & ADAPTER


def whole_of(tree: KVTree, nodes: Ints) -> NDArray[np.bool_]:
    """Which of such nodes hold what rows compute without the technique that others have for it."""
    drawn, whole = tree.drawn[nodes], _of_roots(tree, nodes) & WHOLE_PROMPTS != 0
    return np.asarray(np.where(drawn == 0, whole, drawn == DRAWN_WHOLE))


def _of_roots(tree: KVTree, nodes: Ints) -> Ints:
    is_root = tree.parent[nodes] < 0
    return np.asarray(tree.scope[nodes[is_root]][np.cumsum(is_root) - 1])

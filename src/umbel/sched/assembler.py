"""Hands out steps, and knows a short way to the next one while the same samples go on decoding.

From one such step to the next only what a further token changes is worked out: the other arrays are those of the last
step, so that the cost of a step hardly grows with its samples as long as nobody comes or goes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from umbel.cache.kv_forest import KVForest
from umbel.ir.step import Step
from umbel.sched.assemble import Layout, assemble, pages_of
from umbel.sched.draft import Draft
from umbel.sched.request_table import RequestTable
from umbel.sched.sequences import Sequences


class Assembler:
    """Lays drafts out as Steps, each from scratch or from the last one."""

    def __init__(self, seqs: Sequences, kv: KVForest, requests: RequestTable):
        self._seqs, self._kv, self._requests = seqs, kv, requests
        self._last: Layout | None = None  # of the last step, where it only decoded

    def step(self, draft: Draft) -> Step:
        """The draft as a Step."""
        plain = not (draft.nodes or draft.again or draft.firsts) and self._each_by_one(draft)
        last = self._last
        if last is not None and plain and _same(last, draft, self._kv):
            step = _decode_again(last, self._seqs, self._kv)
            self._last = replace(last, step=step, page_changes=self._seqs.page_changes)
            return step
        layout = assemble(draft, self._seqs, self._kv, self._requests)
        self._last = layout if plain else None
        return layout.step

    def _each_by_one(self, draft: Draft) -> bool:
        """Whether each tail grows by the one token that it lacks."""
        lacking = self._seqs.n_out[draft.tails] - self._seqs.held[draft.tails]
        return bool((lacking == 1).all()) and bool((draft.tail_tokens == 1).all())


def _same(last: Layout, draft: Draft, kv: KVForest) -> bool:
    """Whether a draft that only decodes has the samples of the last step, above the same nodes."""
    return kv.changes == last.changes and np.array_equal(draft.tails, last.tails)


def _decode_again(last: Layout, seqs: Sequences, kv: KVForest) -> Step:
    """The step after one that only decoded, when the same samples decode again: each has one token more."""
    step, tails = last.step, last.tails[last.order]
    positions = seqs.prompt_len[tails] + seqs.held[tails]
    end = step.end.copy()
    end[last.place[len(last.nodes) :]] = positions + 1
    pages, page_begin = step.pages, step.page_begin
    if last.page_changes != seqs.page_changes:
        pages, page_begin = pages_of(last.nodes, tails, seqs, kv)
        page_begin = page_begin[last.entry]
    drawn = step.sampling
    return Step(
        tokens=seqs.out[tails, seqs.held[tails]].astype(np.int64),
        positions=positions,
        fresh=step.fresh,
        parent=step.parent,
        start=step.start,
        end=end,
        row_begin=step.row_begin,
        row_end=step.row_end,
        subtree_end=step.subtree_end,
        pages=pages,
        page_begin=page_begin,
        page_size=step.page_size,
        sampling=replace(drawn, positions=drawn.positions + 1),
    )

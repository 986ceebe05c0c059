"""Which rows of a draft leave a technique of attention out, and what those that take it read or hold of shared runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest
from umbel.ir.workload import WHOLE_PROMPTS
from umbel.plan.draft import PlanDraft
from umbel.plan.for_rows import techniques_of
from umbel.plan.forest.regroup import sum_below

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def left_rows(draft: PlanDraft) -> Flags:
    """Rows that leave out what there is for what they draw: a selector of answers, or a keeper (`[rows]`)."""
    techniques = techniques_of(draft.config)
    found = techniques.left(draft.workload.params, prompts=False)
    return np.zeros(len(draft.workload), bool) if found is None else found


def left_nodes(draft: PlanDraft) -> Flags:
    """Nodes whose tokens are computed without the selector of prompts (`[nodes]`)."""
    scope, forest = draft.workload.scope, draft.forest
    return np.zeros(forest.n_nodes, bool) if scope is None else scope[forest.source] & WHOLE_PROMPTS != 0


@dataclass(frozen=True, slots=True)
class Sharing:
    """Samples below each node that take what there is for what they draw (`takers`, `[nodes]`), and that do not
    (`others`); `size`: its tokens."""

    size: Ints
    takers: Ints
    others: Ints

    @classmethod
    def of(cls, draft: PlanDraft) -> Sharing:
        """Count the samples of the rows which a draft runs."""
        forest, rows = draft.forest, draft.order
        left = left_rows(draft)[rows]
        each = (_below(forest, rows, draft.samples[rows] * which) for which in (~left, left))
        return cls(forest.end - forest.start, *each)

    @property
    def tokens(self) -> int:
        """Tokens that takers read of prompts, those of shared runs once."""
        return int(self.size[self.takers > 0].sum())

    @property
    def staying(self) -> int:
        """Of these, tokens that others read too."""
        return int(self.size[(self.takers > 0) & (self.others > 0)].sum())

    @property
    def readers(self) -> float:
        """Takers that read a token of a run which several samples read, on average; 0 where no run has any."""
        shared = (self.takers > 0) & (self.takers + self.others > 1)
        return float((self.size * self.takers)[shared].sum() / max(self.size[shared].sum(), 1))


def _below(forest: Forest, rows: Ints, samples: Ints) -> Ints:
    at_leaf = np.bincount(forest.leaf[rows], samples, forest.n_nodes).astype(np.int64)
    return sum_below(at_leaf, forest.subtree_end)

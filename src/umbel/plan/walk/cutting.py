"""Tokens of prompts that a job leaves out where a draft model chooses what is read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from umbel import registry
from umbel.cost.cut import left_out
from umbel.cost.roofline import Load
from umbel.ir.cut_workload import CutWorkload
from umbel.plan.draft import PlanDraft
from umbel.plan.forest.documents import copied_tokens
from umbel.plan.passes.prefix import build_forest


@dataclass(frozen=True, slots=True)
class PlannedCut:
    """Of all tokens of prompts that are computed (`prompts`) those that rows share with no other (`own`), and those of
    them that are left out (`out`)."""

    prompts: int
    own: int
    out: int

    @classmethod
    def of(cls, draft: PlanDraft) -> PlannedCut | None:
        """What a draft's job leaves out; None where nothing does, or has already."""
        asked = registry.asked_of("prompt", draft.config.technique)
        if not asked or isinstance(draft.workload, CutWorkload):
            return None
        row, text = asked[0]
        share, forest = row.settings_of(text)["keep"], build_forest(draft.workload)
        params = draft.workload.params
        whole = [i for i, p in enumerate(params) if p.prompt_logprobs is not None or p.pooling_params is not None]
        alone = (forest.rows_below == 1)[forest.leaf]
        own = np.where(alone, (forest.end - forest.start)[forest.leaf], 0)
        own[whole] = 0
        return cls(forest.n_tokens, int(own.sum()), sum(left_out(each, share) for each in own.tolist()))

    def lighten(self, load: Load) -> Load:
        """The load of steps with fewer tokens of prompts, and pairs by the same share."""
        tokens = float((load.steps * load.tokens).sum())
        share = 1.0 - self.out / max(tokens, 1.0)
        return replace(load, tokens=load.tokens * share, pairs=load.pairs * share)


def spared_tokens(draft: PlanDraft) -> int:
    """Tokens of a draft's prompts that no step computes: copies of documents, and what is left out."""
    cut = PlannedCut.of(draft)
    return copied_tokens(draft.forest, draft.workload) + (0 if cut is None else cut.out)

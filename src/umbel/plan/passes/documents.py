"""Says what it brings that documents are computed apart and once, and what that takes."""

from __future__ import annotations

import numpy as np

from umbel.ir.plan import Decision
from umbel.plan.draft import PlanDraft
from umbel.plan.forest.documents import copied_tokens
from umbel.plan.passes.prefix import build_forest
from umbel.plan.reuse import reuses


def count_documents(draft: PlanDraft) -> PlanDraft:
    """Decide "documents": the tokens of documents that are copied to their places instead of computed there."""
    documents, load = draft.workload.documents, draft.workload
    if not reuses(draft.config):
        return draft
    if documents is None:
        return draft.decide(Decision("documents", 0, "no row has documents, so that nothing is computed apart"))
    copied = copied_tokens(draft.forest, load)
    facts = {
        "places": len(documents.number),
        "distinct": len(np.unique(documents.number)),
        "copied": copied,
        "computed": draft.forest.n_tokens - copied,
        "prefixes": build_forest(load).n_tokens,
    }
    why = (
        "{distinct:,} documents in {places:,} places: {copied:,} tokens are copied, keys turned, and {computed:,} "
        "prompt tokens computed, where equal beginnings alone would leave {prefixes:,}; each place has KV of its own"
    )
    return draft.decide(Decision("documents", copied, why, facts=facts))

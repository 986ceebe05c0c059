"""What a technique that forgets makes of the memory of a job: how much rows keep, and where sharing would keep less."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.cost.forget import Measure, held
from umbel.ir.plan import Decision, Fact
from umbel.plan.draft import PlanDraft

Ints = NDArray[np.int64]


def name_keeper(draft: PlanDraft, measure: Measure) -> Decision:
    """The decision "technique": what rows keep of their prompts, each for itself, beside what all prompts are where
    shared runs are there once. Where that is less, forgetting saves nothing (r * p is above 1)."""
    prompts = np.diff(draft.workload.offsets)
    kept = int((kept_places(measure, prompts, prompts) * draft.samples)[draft.order].sum())
    shared = int((draft.forest.end - draft.forest.start).sum())
    share = kept / max(shared, 1)
    facts: dict[str, Fact] = {"kept_tokens": kept, "shared_tokens": shared, "share": share}
    why = "lossy, as asked: rows keep {kept_tokens:,} tokens of prompts, which hold {shared_tokens:,} where they share"
    if share > 1:
        why += "; they would hold less without it"
    return Decision("technique", "; ".join(draft.config.technique), f"{why}; priced as dense", facts=facts)


def kept_places(measure: Measure, prompts: Ints, ends: Ints) -> Ints:
    """Places that rows keep whose prompts have so many tokens, once their paths reach `ends` (`[rows]`) and what is
    forgotten at the end of the prompt is gone."""
    pairs, back = np.unique(np.stack([prompts, ends]), axis=1, return_inverse=True)
    each = [
        held(measure, prompt, end) if end > prompt else min(measure.live(prompt, end), end)
        for prompt, end in pairs.T.tolist()
    ]
    return np.array(each, np.int64)[back.reshape(-1)]

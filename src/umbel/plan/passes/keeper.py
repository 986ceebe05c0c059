"""What a technique that forgets makes of the memory of a job: how much rows keep, and where sharing would keep less."""

from __future__ import annotations

import numpy as np

from umbel import registry
from umbel.cost.forget import Measure
from umbel.ir.plan import Decision, Fact
from umbel.plan.draft import PlanDraft
from umbel.plan.walk.forgetting import kept_places
from umbel.plan.walk.sharing import Sharing, left_rows


def name_keeper(draft: PlanDraft) -> PlanDraft:
    """Decide "technique" where something is forgotten: what rows keep of their prompts, each for itself, beside what
    prompts are where shared runs are there once. Where that is less, forgetting saves nothing (r * p is above 1)."""
    measure = registry.measure("technique", draft.config.technique)
    if measure is None:
        return draft
    prompts, left, sharing = np.diff(draft.workload.offsets), left_rows(draft), Sharing.of(draft)
    kept = int((kept_places(measure, prompts, prompts) * draft.samples * ~left)[draft.order].sum())
    shared, rows = sharing.tokens, len(prompts) - int(left.sum())
    share = kept / max(shared, 1)
    facts: dict[str, Fact] = {"kept_tokens": kept, "shared_tokens": shared, "share": share, "rows": rows}
    facts |= {"all_rows": len(prompts), "staying": sharing.staying}
    whose = "{rows:,} of {all_rows:,} rows" if left.any() else "rows"
    why = f"lossy, as asked: {whose} keep {{kept_tokens:,}} tokens of prompts, which hold {{shared_tokens:,}} where "
    why += "they share (r * p = {share:.2f})"
    if sharing.staying:
        why += "; {staying:,} of these stay, as rows read them that forget nothing"
    if share > 1:
        why += "; they would hold less without it"
    return draft.decide(Decision("technique", "; ".join(draft.config.technique), why, facts=facts))


def pages_with_memories(draft: PlanDraft, measure: Measure) -> int:
    """All shared runs, the memories and answers of the rows that may run together and need most, and the prompts that
    are whole while a step or two compute them; one page to spare. Rows that forget nothing hold their answers whole."""
    forest, page = draft.forest, draft.config.page_size
    nodes = -(-(forest.end - forest.start) // page)
    shared, prompts = forest.rows_below > 1, np.diff(draft.workload.offsets)
    ends = (prompts, prompts + draft.limits)
    kept = np.maximum(*(-(-kept_places(measure, prompts, end) // page) for end in ends)) + 1
    grown = -(-draft.limits // page) + np.where(shared, 0, nodes)[forest.leaf]
    kept = np.where(left_rows(draft), grown, kept)
    own = np.sort((draft.samples * kept)[draft.order])[-draft.chunk :]
    whole = int(np.where(shared, 0, nodes)[forest.leaf].max(initial=0)) + -(-draft.chunk // page)
    return int(nodes[shared].sum()) + int(own.sum()) + whole + 1

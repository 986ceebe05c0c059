"""How many tokens a page of the pool has: few, unless each page also holds a state that is larger than their KV."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from umbel.config import PAGE_SIZE
from umbel.ir.plan import Decision
from umbel.plan.draft import PlanDraft
from umbel.plan.passes.prefix import sum_above

SIZES = tuple(PAGE_SIZE << i for i in range(9))  # that are tried where pages hold states


def choose_page(draft: PlanDraft) -> PlanDraft:
    """Decide "page_size": as asked; with states the size that takes the least memory, else the usual one."""
    page, state = draft.config.page_size, draft.price.shape.state_bytes
    if page != PAGE_SIZE:
        why, facts = "as asked", dict[str, int]()
    elif state:
        page, why = (
            _cheapest(draft),
            "of {least:,} to {most:,} tokens, what takes the least memory for all runs and answers",
        )
        facts = {"least": SIZES[0], "most": SIZES[-1]}
    else:
        why = "room for at most {unused_tokens} tokens stays empty at the end of a run of the forest, or of an answer"
        facts = {"unused_tokens": page - 1}
    if state:
        why, facts = (
            f"{why}; beside keys and values a page holds a state of {{state_bytes:,}} bytes",
            facts | {"state_bytes": state},
        )
    return replace(
        draft.decide(Decision("page_size", page, why, facts=facts)), config=replace(draft.config, page_size=page)
    )


def _cheapest(draft: PlanDraft) -> int:
    """The size of pages in which all runs and answers together take the fewest bytes; where none are known, that whose
    keys and values take as much as a state."""
    shape, forest = draft.price.shape, draft.forest
    if not len(draft.workload):
        return next((size for size in SIZES if size * shape.kv_bytes >= shape.state_bytes), SIZES[-1])
    runs, answers = forest.end - forest.start, np.maximum(draft.lengths, 1)

    def n_bytes(size: int) -> int:
        pages = int((-(-runs // size)).sum()) + int((draft.samples * -(-answers // size)).sum())
        return pages * (size * shape.kv_bytes + shape.state_bytes)

    asked = draft.config.kv_tokens
    able = [size for size in SIZES if asked is None or least_pages(draft, size) * size <= asked]
    return min(able or SIZES[:1], key=n_bytes)


def least_pages(draft: PlanDraft, page: int) -> int:
    """The pages of so many tokens that the row holds which needs most, alone with one sample of the assumed length."""
    forest = draft.forest
    path = sum_above(forest, -(-(forest.end - forest.start) // page))
    return int((path[forest.leaf] - (-draft.lengths // page)).max(initial=1))

"""Sizes the KV pool: what the workload can ever hold at a time, within what the machine leaves."""

from __future__ import annotations

import numpy as np

from umbel.errors import CapacityError
from umbel.ir.plan import Decision
from umbel.plan.draft import Draft
from umbel.plan.passes.prefix import sum_above


def size_pool(draft: Draft) -> Draft:
    """As much as can ever be in use if memory allows, else what it allows; raises CapacityError when a row cannot fit.

    Never more rows run at once than a step has tokens, and none outgrows its limit.
    """
    asked = draft.config.kv_tokens
    if asked is not None:
        return draft.decide(Decision("kv_tokens", asked, "as asked"), kv_tokens=asked)
    page = draft.config.page_size
    useful, room, least = _useful_pages(draft) * page, _room(draft) // page * page, _least_pages(draft) * page
    if room < least:
        raise CapacityError(_no_fit(draft, room, least))
    at_once = min(draft.chunk, len(draft.workload))
    if useful <= room:
        reason = f"the most that {at_once:,} rows at once can hold; memory allows {room:,}"
        return draft.decide(Decision("kv_tokens", useful, reason), kv_tokens=useful)
    share = draft.price.machine.kv_fraction
    reason = f"{share:.0%} of the memory that weights leave; {at_once:,} rows at once could hold {useful:,}"
    return draft.decide(Decision("kv_tokens", room, reason), kv_tokens=room)


def _room(draft: Draft) -> int:
    """KV tokens that fit the share of memory which KV may take."""
    return int(_free_bytes(draft) * draft.price.machine.kv_fraction) // draft.price.shape.kv_bytes


def _free_bytes(draft: Draft) -> int:
    weights = 0 if draft.loaded else draft.price.shape.weight_bytes
    return max(draft.price.machine.memory_bytes - weights, 0)


def _useful_pages(draft: Draft) -> int:
    """All shared runs, and of the rows that may run together those with the most of their own; one page to spare."""
    forest, page = draft.forest, draft.config.page_size
    nodes = -(-(forest.end - forest.start) // page)
    shared = forest.rows_below > 1
    own = draft.samples * -(-draft.limits // page) + np.where(shared, 0, nodes)[forest.leaf]
    return int(nodes[shared].sum()) + int(np.sort(own)[-draft.chunk :].sum()) + 1


def _least_pages(draft: Draft) -> int:
    """What the row that needs most holds alone, with one sample of the assumed length."""
    forest, page = draft.forest, draft.config.page_size
    path = sum_above(forest, -(-(forest.end - forest.start) // page))
    return int((path[forest.leaf] - (-draft.lengths // page)).max(initial=1))


def _no_fit(draft: Draft, room: int, least: int) -> str:
    return (
        f"the largest row needs KV for {least:,} tokens, but the memory that is free beside the weights "
        f"({_free_bytes(draft) / 1e9:.2f} GB, of which KV may take {draft.price.machine.kv_fraction:.0%}) has room for "
        f"{room:,}; free memory, use --dtype bfloat16, a smaller model or a lower --max-tokens, or set --kv-tokens"
    )

"""Sizes the KV pool: what the workload can ever hold at a time, within what the machine leaves."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from umbel import registry
from umbel.cost.forget import query_bytes
from umbel.cost.shape import BYTES
from umbel.cost.survival import OVERFLOW
from umbel.errors import CapacityError
from umbel.ir.adapter import kept_bytes
from umbel.ir.plan import Decision, Fact
from umbel.plan.draft import PlanDraft
from umbel.plan.passes.keeper import pages_with_memories
from umbel.plan.passes.lengths import CONFIDENCE
from umbel.plan.passes.page import choose_page, least_pages
from umbel.plan.passes.prefix import sum_above
from umbel.plan.reuse import kept_tokens

Z_OVERFLOW = NormalDist().inv_cdf(1 - OVERFLOW)
Z_INTERVAL = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)  # of the interval that the lengths pass gives


def size_pool(draft: PlanDraft) -> PlanDraft:
    """As much as can ever be in use if memory allows, else what it allows; raises CapacityError when a row cannot fit.

    Never more rows run at once than a step has tokens, and none outgrows its limit. A pool that cannot hold as much as
    that needs a rule by which rows are admitted: `draft.admission`.
    """
    draft = choose_page(draft)
    page = draft.config.page_size
    decision = _pool(draft, page)
    draft = draft.decide(decision, kv_tokens=int(decision.value))
    if draft.kv_tokens >= useful_pages(draft) * page:
        return draft
    return draft.decide(_rule(draft))


def _pool(draft: PlanDraft, page: int) -> Decision:
    if draft.config.kv_tokens is not None:
        return Decision("kv_tokens", draft.config.kv_tokens, "as asked")
    useful, room, least = useful_pages(draft) * page, kv_room(draft) // page * page, least_pages(draft, page) * page
    if room < least:
        raise CapacityError(_no_fit(draft, room, least))
    facts = {"rows_at_once": min(draft.chunk, len(draft.workload)), "useful_tokens": useful, "free_tokens": room}
    if useful <= room:
        why = "the most that {rows_at_once:,} rows at once can hold; memory allows {free_tokens:,}"
        return Decision("kv_tokens", useful, why, facts=facts)
    why = "{kv_share:.0%} of the memory that weights leave; {rows_at_once:,} rows at once could hold {useful_tokens:,}"
    return Decision("kv_tokens", room, why, facts={**facts, "kv_share": draft.price.machine.kv_fraction})


def _rule(draft: PlanDraft) -> Decision:
    """The rule of admission, and what it does with the pool in the words of its row."""
    says = registry.find("admission", draft.admission).says
    if not says:
        return Decision("admission", draft.admission, "as asked")
    tokens, words = _ceiling(draft)
    facts: dict[str, Fact] = {"overflow": OVERFLOW, "ceiling": words, "ceiling_tokens": tokens}
    return Decision("admission", draft.admission, says, facts=facts)


def _ceiling(draft: PlanDraft) -> tuple[float, str]:
    """Tokens of the pool less what is kept free, as the rows of a full pool differ from what is expected of them; and
    the same in words."""
    if draft.output_spread == 0:
        return draft.kv_tokens, f"{draft.kv_tokens:,} tokens, with lengths learned as rows end"
    output = draft.samples * draft.lengths
    forest = draft.forest
    own = sum_above(forest, np.where(forest.rows_below == 1, forest.end - forest.start, 0))[forest.leaf]
    at_once = min(max(draft.kv_tokens / max(float((own + output / 2).mean()), 1.0), 1.0), len(output))
    # The spread of all rows' total, as a share of it, is that of a part of the rows by the root of their numbers.
    spread = draft.output_spread * (len(output) / at_once) ** 0.5 * Z_OVERFLOW / Z_INTERVAL
    ceiling = draft.kv_tokens - min(spread * at_once * float(output.mean()) / 2, draft.kv_tokens / 2)
    return ceiling, f"{ceiling:,.0f} tokens"


def kv_room(draft: PlanDraft) -> int:
    """KV tokens that fit the share of memory which KV may take, with the states that their pages hold."""
    room, page = int(_free_bytes(draft) * draft.price.machine.kv_fraction), draft.config.page_size
    shape, measure = draft.price.shape, registry.measure("technique", draft.config.technique)
    beside = 0 if measure is None or not measure.keeps_queries else query_bytes(draft.spec, BYTES[draft.price.dtype])
    return room * page // ((shape.kv_bytes + beside) * page + shape.state_bytes)


def _free_bytes(draft: PlanDraft) -> int:
    weights = 0 if draft.loaded else draft.price.shape.weight_bytes
    weights += kept_bytes(draft.spec.adapters, BYTES[draft.price.dtype])  # which are read when rows ask for them
    beside = kept_tokens(draft.config, draft.workload) * draft.price.shape.kv_bytes
    return max(draft.price.machine.memory_bytes - weights - beside, 0)


def useful_pages(draft: PlanDraft) -> int:
    """All shared runs, and of the rows that may run together those with the most of their own; one page to spare."""
    if (measure := registry.measure("technique", draft.config.technique)) is not None:
        return pages_with_memories(draft, measure)
    forest, page = draft.forest, draft.config.page_size
    nodes = -(-(forest.end - forest.start) // page)
    shared = forest.rows_below > 1
    own = draft.samples * -(-draft.limits // page) + sum_above(forest, np.where(shared, 0, nodes))[forest.leaf]
    return int(nodes[shared].sum()) + int(np.sort(own[draft.order])[-draft.chunk :].sum()) + 1


def _no_fit(draft: PlanDraft, room: int, least: int) -> str:
    return (
        f"the largest row needs KV for {least:,} tokens, but the memory that is free beside the weights "
        f"({_free_bytes(draft) / 1e9:.2f} GB, of which KV may take {draft.price.machine.kv_fraction:.0%}) has room for "
        f"{room:,}; free memory, use --dtype bfloat16, a smaller model or a lower --max-tokens, or set --kv-tokens"
    )

"""Chooses the chunk: how many tokens one step computes at most, prompts and decodes together (SARATHI, 2308.16369)."""

from __future__ import annotations

from umbel.ir.plan import Decision
from umbel.plan.draft import PlanDraft
from umbel.plan.walk.pricing import run_seconds

NEAR = 1.03  # a smaller chunk is taken when its price is within 3 % of the best


def choose_chunk(draft: PlanDraft) -> PlanDraft:
    """The smallest candidate with which the whole run costs nearly as little as with the best one.

    The number of running rows is not capped: tokens and KV memory are the only limits (BatchLLM, 2412.03594, section
    4.3).
    """
    if draft.config.chunk is not None:
        return draft.decide(Decision("chunk", draft.config.chunk, "as asked"), chunk=draft.config.chunk)
    prices = [(chunk, run_seconds(draft, chunk=chunk)) for chunk in draft.price.machine.chunks]
    best = min(seconds for _, seconds in prices)
    chunk, seconds = next(pair for pair in prices if pair[1] <= best * NEAR)
    tokens = draft.forest.n_tokens + int((draft.samples * draft.lengths)[draft.order].sum())
    facts = {"tokens_per_second": tokens / seconds} if seconds else {}
    pace = ", {tokens_per_second:,.0f} tokens/s" if seconds else ""
    others = tuple((f"{c:,}", s) for c, s in prices if c != chunk)
    reason = f"the smallest whose whole run is within 3 % of the fastest{pace}; decodes first, no cap on rows"
    return draft.decide(Decision("chunk", chunk, reason, others, facts), chunk=chunk)

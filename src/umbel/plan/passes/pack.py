"""Chooses the chunk: how many tokens one step computes at most, prompts and decodes together (SARATHI, 2308.16369)."""

from __future__ import annotations

from umbel.cost.roofline import Load
from umbel.ir.plan import Decision
from umbel.plan.draft import Draft

NEAR = 1.03  # a smaller chunk is taken when its price is within 3 % of the best


def choose_chunk(draft: Draft) -> Draft:
    """The smallest candidate whose full steps cost nearly as little per token as the best one's."""
    if draft.config.chunk is not None:
        return draft.decide(Decision("chunk", draft.config.chunk, "as asked"), chunk=draft.config.chunk)
    tokens = draft.forest.n_tokens + int((draft.samples * draft.lengths).sum())
    prices = [(chunk, _seconds(draft, chunk, tokens)) for chunk in draft.price.machine.chunks]
    best = min(seconds for _, seconds in prices)
    chunk, seconds = next(pair for pair in prices if pair[1] <= best * NEAR)
    reason = f"the smallest within 3 % of the best price, {tokens / seconds:,.0f} tokens/s"
    others = tuple((f"{c:,}", s) for c, s in prices if c != chunk)
    return draft.decide(Decision("chunk", chunk, reason, others), chunk=chunk)


def _seconds(draft: Draft, chunk: int, tokens: int) -> float:
    """All tokens in steps as full as they get: chunks differ in how often weights are read and layers called."""
    steps = max(-(-tokens // chunk), 1)
    return float(draft.price.each(Load.one(tokens / steps, 1, 0, 0))[0]) * steps

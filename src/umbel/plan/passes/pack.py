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
    reason = f"smallest step within 3 % of the best price: {1e6 * seconds / max(tokens, 1):.3g} us a token"
    others = tuple((f"{c:,}", s) for c, s in prices if c != chunk)
    return draft.decide(Decision("chunk", chunk, reason, others), chunk=chunk)


def _seconds(draft: Draft, chunk: int, tokens: int) -> float:
    """All tokens in full steps of `chunk`: chunks differ in how often weights are read and layers called."""
    each = draft.price.each(Load.one(chunk, 1, 0, 0))
    return float(each[0]) * tokens / chunk

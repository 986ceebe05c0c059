"""Orders the rows: a depth-first walk of the forest, so that a shared run is held from its first reader to its last."""

from __future__ import annotations

from umbel.ir.plan import Decision
from umbel.plan.draft import Draft


def order_rows(draft: Draft) -> Draft:
    """Follow the forest; its siblings stand in input order, so answers come roughly as the rows do."""
    reason = "depth-first over the forest: a shared run is released as soon as its last row is done"
    shares = draft.forest.n_nodes and int(draft.forest.rows_below.max()) > 1
    if not shares:
        reason = "no prompts share a beginning, so rows run as they come"
    value = "tree walk" if shares else "input"
    return draft.decide(Decision("order", value, reason), order=draft.forest.order)

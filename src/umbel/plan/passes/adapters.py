"""Says which adapters rows ask for, and what they cost beside the model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.cost.shape import BYTES
from umbel.ir.adapter import kept_bytes
from umbel.ir.plan import Decision, Fact
from umbel.ir.workload import ADAPTER
from umbel.plan.draft import PlanDraft

SHOWN = 8  # adapters that are listed with their rows


def name_adapters(draft: PlanDraft) -> PlanDraft:
    """Decide "adapters", where the model has any: rows of each, the memory they take, and the arithmetic that they add
    to the products of their tokens."""
    adapters, scope = draft.spec.adapters, draft.workload.scope
    if not adapters:
        return draft
    numbers = np.zeros(len(draft.workload), np.int64) if scope is None else scope & ADAPTER
    rows = np.bincount(numbers, minlength=len(adapters) + 1)[1:]
    flops = np.array([0, *(adapter.token_flops for adapter in adapters)])
    added = float((flops[numbers] * _tokens(draft)).sum())
    usual = float((_tokens(draft)[numbers > 0]).sum()) * draft.price.shape.token_flops
    used = np.flatnonzero(rows)
    listed = ", ".join(f"{adapters[i].name} {rows[i]:,}" for i in used[:SHOWN])
    facts: dict[str, Fact] = {
        "adapters": len(adapters),
        "rows": int(rows.sum()),
        "loads": len(used),
        "listed": listed + (f" and {len(used) - SHOWN} more" if len(used) > SHOWN else ""),
        "megabytes": kept_bytes(adapters, BYTES[draft.price.dtype]) / 1e6,
        "more_arithmetic": added / usual if usual else 0.0,
    }
    if not len(used):
        return draft.decide(Decision("adapters", "0 rows", "no row asks for one of the {adapters:,}", facts=facts))
    why = (
        "rows by adapter: {listed}; those of one share KV and follow one another, so that {loads:,} are read from "
        "their files; {megabytes:,.1f} MB, {more_arithmetic:.1%} more arithmetic for their tokens"
    )
    return draft.decide(Decision("adapters", f"{facts['rows']:,} rows", why, facts=facts))


def _tokens(draft: PlanDraft) -> NDArray[np.int64]:
    """Tokens of each row, in its prompt and all of its answers (`[rows]`)."""
    return np.asarray(np.diff(draft.workload.offsets) + draft.samples * draft.lengths)

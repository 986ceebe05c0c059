"""What the plans of a job expect of each of several replicas, added up over its parts as `sums` does all else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import zip_longest
from typing import Any

Record = Mapping[str, Any]


def shares_of(plan: Record) -> list[dict[str, Any]]:
    """The shares in the record of a plan; none where it is of one replica."""
    return list(plan.get("replicas", {}).get("shares", []))


def added_shares(one: Sequence[Record], other: Sequence[Record]) -> list[dict[str, Any]]:
    """The shares of two parts, added up by number."""
    pairs = zip_longest(one, other, fillvalue={})
    return [{name: a.get(name, 0) + b.get(name, 0) for name in {**a, **b}} for a, b in pairs]


def joined_shares(plans: Sequence[Record]) -> dict[str, Any]:
    """The shares of plans whose parts are open together, as in the record of one plan."""
    found = reduce(added_shares, map(shares_of, plans))
    return {"replicas": {"shares": found}} if found else {}


def due_shares(plan: Record, whole: Record, due: Record) -> list[dict[str, Any]]:
    """The shares of a plan, as far as its figures (`whole`) were `due`."""
    names = ("rows", "computed_prompt_tokens", "seconds")
    rows, tokens, time = (due[name] / whole[name] if whole[name] else 1.0 for name in names)
    part = {"rows": rows, "tokens": tokens, "seconds": time, "idle_seconds": time}
    return [{name: share[name] * scale for name, scale in part.items()} for share in shares_of(plan)]

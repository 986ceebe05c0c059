"""What a job has taken over all its runs: seconds by phase, what they cost, and what else the machine had to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.ir.price import cost_of, cost_text
from umbel.jobs.store import JobStore

SPENT = "spent"  # the store's record; runs that were killed are not in it


def add_spent(store: JobStore, seconds: Mapping[str, float], price: float | None, beside: str) -> dict[str, Any]:
    """Add a run to what the store has, and return all of it: `seconds` by phase, `price` of an hour (of the last run
    that was given one), `cost`, both None without one, and `beside`, the words on other work in the last run."""
    earlier = store.get(SPENT) or {}
    total = {name: round(earlier.get("seconds", {}).get(name, 0.0) + value, 4) for name, value in seconds.items()}
    price = earlier.get("price") if price is None else price
    cost = None if price is None else cost_of(sum(total.values()), price)
    found = {"seconds": total, "price": price, "cost": cost, "beside": beside}
    store.put(**{SPENT: found})
    return found


def price_text(spent: Mapping[str, Any]) -> str:
    """What a job with a price has cost, in words."""
    return f"{cost_text(spent['cost'])} at {spent['price']:,.2f} an hour"

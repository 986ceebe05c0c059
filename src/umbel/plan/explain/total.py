"""What a job takes as a whole, put into the record of its plan: start and steps together, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from umbel.cost.roofline import Seconds
from umbel.ir.price import cost_of, cost_text


def put_total(record: dict[str, Any], reading: Seconds, loading: Seconds, price: float | None) -> None:
    """Put the seconds to read and to load (`startup`) and of all together (`total_seconds`) into a record, each an
    object of `low`, `expected` and `high`; with a price of an hour of the machine, the job's (`price`), too."""
    parts = [asdict(reading), asdict(loading), record["seconds"]]
    total = {name: sum(part[name] for part in parts) for name in ("low", "expected", "high")}
    record |= {"startup": {"reading": parts[0], "loading": parts[1]}, "total_seconds": total}
    if price is not None:
        record["price"] = {"an_hour": price, **{name: cost_of(seconds, price) for name, seconds in total.items()}}


def price_text(price: Mapping[str, float]) -> str:
    """What a job costs, with its interval."""
    low, high = (cost_text(price[name]) for name in ("low", "high"))
    return f"{cost_text(price['expected'])} ({low} to {high}) at {price['an_hour']:,.2f} an hour"

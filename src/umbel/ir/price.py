"""What machine time costs, in whatever currency the price of an hour is given in."""

from __future__ import annotations


def cost_of(seconds: float, an_hour: float) -> float:
    """The cost of so many seconds."""
    return seconds * an_hour / 3600


def cost_text(cost: float) -> str:
    """A cost in hundredths; a smaller one with two digits."""
    return f"{cost:,.2f}" if cost >= 0.1 or cost == 0 else f"{cost:.2g}"

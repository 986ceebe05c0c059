"""What the lab can measure: each lossy row of the catalogue, and of those with a budget several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from umbel.config import EngineConfig
from umbel.cost.damage import SHORT
from umbel.errors import UsageError, nearest
from umbel.plan.choice import lossy_rows
from umbel.technique import Technique


@dataclass(frozen=True, slots=True)
class Offer:
    """A technique as an engine is asked for it: a `row` and the `value` of its option."""

    row: Technique
    value: str

    @property
    def name(self) -> str:
        """What people call it: linear int8, pages:budget=0.25."""
        option = self.row.option[0]
        return f"{SHORT.get(option, option)} {self.value}".strip()

    def options(self) -> dict[str, Any]:
        """Keywords of an `LLM` that take it."""
        option = self.row.option[0]
        usual = getattr(EngineConfig("demo"), option)
        value = (self.value,) if isinstance(usual, tuple) else int(self.value) if isinstance(usual, int) else self.value
        return {option: value, "allow_lossy": True}


def find_offers(asked: Sequence[str], budgets: Sequence[float] = ()) -> list[Offer]:
    """What is `asked` for by name: pages, pages:budget=0.5, linear=int8, int8 (of every family that has it); nothing:
    all. A technique with a setting that has `tries` is measured at each of the `budgets`, at its `tries` where there is
    none that it can be. Raises UsageError."""
    rows = lossy_rows()
    if not asked:
        return [offer for row in rows for offer in _all_of(row, budgets)]
    return [offer for name in asked for offer in _asked(name, rows, budgets)]


def _asked(name: str, rows: Sequence[Technique], budgets: Sequence[float]) -> Iterator[Offer]:
    plain, _, settings = name.partition(":")
    found = [row for row in rows if plain in _names(row)]
    if not found:
        known = [known for row in rows for known in _names(row)[:2]]
        listed = ", ".join(dict.fromkeys(known))
        raise UsageError(f"techniques={name!r}: no lossy technique{nearest(plain, known)}; there are {listed}")
    for row in found:
        if not settings:
            yield from _all_of(row, budgets)
            continue
        try:
            row.settings_of(f"{row.name}:{settings}")
        except ValueError as error:
            raise UsageError(f"techniques={name!r}: {error}") from None
        yield Offer(row, f"{row.name}:{settings}")


def _names(row: Technique) -> tuple[str, ...]:
    """The names that ask for a row: its own, with its family or option, or these alone."""
    option, value = row.option
    return (row.name, f"{row.family}={row.name}", f"{option}={value}", row.family, option)


def _all_of(row: Technique, budgets: Sequence[float]) -> list[Offer]:
    """A row at each budget that its setting can be, else at those that its row says; one without settings once."""
    setting = next((one for one in row.settings if one.tries), None)
    if setting is None:
        return [Offer(row, row.option[1])]
    asked = [f"{row.name}:{setting.name}={budget:g}" for budget in budgets]
    values = [value for value in asked if _can_be(row, value)]
    return [Offer(row, value) for value in values or [f"{row.name}:{setting.name}={one:g}" for one in setting.tries]]


def _can_be(row: Technique, value: str) -> bool:
    try:
        row.settings_of(value)
    except ValueError:
        return False
    return True

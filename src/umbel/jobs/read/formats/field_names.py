"""The names that rows have, sorted once for all rows that have the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from umbel.ir import body as wire

_MEMO_ENTRIES = 4_096
_LEAST_CHARS = 5  # of a name that may be a slip: among shorter ones, neighbours are words of their own
_ALIKE = 0.85  # max_tokns and max_tokens: 0.95; label and labels: 0.91; score and store: 0.8

_MEANT = sorted(wire.OFTEN_MEANT | wire.PLAIN.own)


@dataclass(frozen=True, slots=True)
class FieldNames:
    """What the names in rows stand for; `data` are columns that feed the prompt, `id_column` gives the ids."""

    data: frozenset[str] = frozenset()
    id_column: str | None = None
    _sorted: dict[tuple[str, ...], tuple[list[str], list[str]]] = field(default_factory=dict)
    _slips: dict[str, bool] = field(default_factory=dict)

    def sort(self, item: Mapping[str, Any], dialect: wire.Dialect, *, guess: bool) -> tuple[list[str], list[str]]:
        """The names of sampling fields in an object, and those that nothing reads; with `guess`, where such names are
        columns, only those that were probably meant for a field."""
        key = (dialect.name, *item)
        found = self._sorted.get(key)
        if found is None:
            unknown = [name for name in wire.unknown_fields(item, dialect) if not guess or self.is_slip(name)]
            read = wire.EFFECTIVE_FIELDS - dialect.own - self.data
            found = [name for name in item if name in read], unknown
            if len(self._sorted) < _MEMO_ENTRIES:
                self._sorted[key] = found
        return found

    def is_slip(self, name: str) -> bool:
        """Whether a name that nothing reads was probably meant for a field; others are columns that come back."""
        found = self._slips.get(name)
        if found is None:
            found = name not in self.data and name != self.id_column and slip_of(name) is not None
            if len(self._slips) < _MEMO_ENTRIES:
                self._slips[name] = found
        return found


def slip_of(name: str) -> str | None:
    """The field that a name is within a slip of the pen of, None for a name that is just another."""
    if len(name) < _LEAST_CHARS:
        return None
    close = get_close_matches(name.lower(), _MEANT, n=1, cutoff=_ALIKE)
    return close[0] if close else None

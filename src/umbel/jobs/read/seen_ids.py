"""Ids that were given before, in one file or in another of the same job: such a row is an error that names both
lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from umbel.ir.limits import shown
from umbel.ir.request import RowError
from umbel.jobs.read.records import InputRow, line_of
from umbel.jobs.read.unique import IdIndex

_BLOCK_ROWS = 2_048
_LINE_BITS = 40


@dataclass(slots=True)
class SeenIds:
    """Makes a row whose id was used before an error row. `names` are those of the files, where there are several."""

    names: Sequence[str] = ()
    _index: IdIndex = field(default_factory=IdIndex)
    _any_explicit: bool = False
    _firsts: dict[int, int] = field(default_factory=dict)  # by file: the number of its first row

    def check(self, batch: list[InputRow], file: int = 0) -> list[InputRow]:
        """The rows, which are some of one file. Files come in their order."""
        self._firsts.setdefault(file, batch[0].row)
        if not self._any_explicit and not any(row.explicit_id for row in batch):
            return batch  # row numbers alone cannot clash
        if not self._any_explicit:
            self._any_explicit = True
            self._backfill(batch[0].row)
        named = [i for i, row in enumerate(batch) if row.custom_id is not None]
        ids = [batch[i].custom_id or "" for i in named]
        places = [_place(file, batch[i].line) for i in named]
        for at, first in self._index.add(ids, places).items():
            batch[named[at]] = repeated(batch[named[at]], self._where(first))
        return batch

    def _backfill(self, rows: int) -> None:
        """Take in the rows of the files so far, which go by their numbers."""
        firsts = [*self._firsts.items(), (0, rows)]
        for (file, first), (_, end) in pairwise(firsts):
            for start in range(first, end, _BLOCK_ROWS):
                numbers = range(start, min(end, start + _BLOCK_ROWS))
                self._index.add([str(n) for n in numbers], [_place(file, n - first + 1) for n in numbers])

    def _where(self, place: int) -> str:
        return line_of(place & ((1 << _LINE_BITS) - 1), self.names[place >> _LINE_BITS] if self.names else None)


def _place(file: int, line: int) -> int:
    return file << _LINE_BITS | line


def repeated(row: InputRow, first: str) -> InputRow:
    """The row as an error row, because its id was given on the line `first` already."""
    message = f"custom_id {shown(row.custom_id)} on {row.where} was already used on {first}"
    return row._replace(request=None, error=RowError("duplicate_custom_id", message, "custom_id"))

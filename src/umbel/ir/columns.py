"""Arrays with one entry per thing, which grow together: doubling, so that n things cost O(n) however they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

Entry = TypeVar("Entry", bound=np.generic)


class Columns:
    """A class whose subclasses name their arrays in `_FILLS`, with what new entries are filled with: a whole number, a
    float or a flag. All have `capacity` entries."""

    _FILLS: ClassVar[Mapping[str, float]] = {}

    def __init__(self, capacity: int):
        self.capacity = capacity
        for name, fill in self._FILLS.items():
            setattr(self, name, np.full(capacity, fill))

    def reserve(self, size: int) -> None:
        """Make room for at least `size` entries."""
        if size <= self.capacity:
            return
        self.capacity = max(size, 2 * self.capacity)
        for name, fill in self._FILLS.items():
            setattr(self, name, lengthen(getattr(self, name), self.capacity, fill))


class Growable(Columns):
    """Columns that are filled from the front: the first `used` entries are there."""

    def __init__(self) -> None:
        super().__init__(64)
        self.used = 0

    def _grow(self, count: int, **values: NDArray[Any] | float) -> None:
        """So many entries more, with these values in their columns (for each entry, or one for all), and what new
        entries are filled with in the others."""
        first, self.used = self.used, self.used + count
        self.reserve(self.used)
        for name, value in values.items():
            self.__dict__[name][first : self.used] = value


def lengthen(column: NDArray[Entry], size: int, fill: float = 0) -> NDArray[Entry]:
    """The array with at least `size` entries along its first axis."""
    if size <= len(column):
        return column
    more = np.full((max(size, 2 * len(column)) - len(column), *column.shape[1:]), fill, column.dtype)
    return np.concatenate([column, more])


def joined(column: NDArray[Entry], used: int, more: NDArray[Entry]) -> NDArray[Entry]:
    """The array with `more` behind its first `used` entries; nothing is copied where there are none of one of them."""
    if used == 0 or len(more) == 0:
        return column if used else more
    column = lengthen(column, used + len(more))
    column[used : used + len(more)] = more
    return column


def runs(first: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers from `first[i]` on, `counts[i]` of them, for each i in turn."""
    return np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())

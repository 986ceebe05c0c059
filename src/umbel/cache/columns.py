"""Arrays with one entry per thing, which grow together: doubling, so that n things cost O(n) however they come."""

from __future__ import annotations

from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

Entry = TypeVar("Entry", bound=np.generic)


class Columns:
    """A class whose subclasses name their int64 arrays and what new entries are filled with in `_FILLS`."""

    _FILLS: ClassVar[dict[str, int]] = {}

    def __init__(self, capacity: int):
        self.capacity = capacity
        for name, fill in self._FILLS.items():
            setattr(self, name, np.full(capacity, fill, np.int64))

    def reserve(self, size: int) -> None:
        """Make room for at least `size` entries."""
        if size <= self.capacity:
            return
        self.capacity = max(size, 2 * self.capacity)
        for name, fill in self._FILLS.items():
            setattr(self, name, lengthen(getattr(self, name), self.capacity, fill))


def lengthen(column: NDArray[Entry], size: int, fill: int = 0) -> NDArray[Entry]:
    """The array with at least `size` entries along its first axis."""
    if size <= len(column):
        return column
    more = np.full((max(size, 2 * len(column)) - len(column), *column.shape[1:]), fill, column.dtype)
    return np.concatenate([column, more])


def runs(first: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers from `first[i]` on, `counts[i]` of them, for each i in turn."""
    return np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())

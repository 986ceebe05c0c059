"""Reads the parameters of many rows by looking once at each object that rows share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.params import SamplingParams

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Distinct:
    """The parameter objects of some rows: each one once (`objects`), and which of them each row has (`which`,
    `[rows]`)."""

    objects: tuple[SamplingParams, ...]
    which: Ints

    @classmethod
    def of(cls, params: Sequence[SamplingParams]) -> Distinct:
        """The objects told apart by identity; equal ones may come twice."""
        ids = np.fromiter(map(id, params), np.int64, len(params))
        _, first, which = np.unique(ids, return_index=True, return_inverse=True)
        return cls(tuple(params[i] for i in first.tolist()), which)

    def column(self, read: Callable[[SamplingParams], int]) -> Ints:
        """A whole number for every row (`[rows]`)."""
        return np.fromiter(map(read, self.objects), np.int64, len(self.objects))[self.which]

    def floats(self, read: Callable[[SamplingParams], float]) -> NDArray[np.float64]:
        """A number for every row (`[rows]`)."""
        return np.fromiter(map(read, self.objects), np.float64, len(self.objects))[self.which]

    def flags(self, read: Callable[[SamplingParams], bool]) -> NDArray[np.bool_]:
        """Whether something holds for every row (`[rows]`)."""
        return np.fromiter(map(read, self.objects), bool, len(self.objects))[self.which]

    def by_value(self) -> tuple[Ints, int]:
        """A number for each row that is the same for equal parameters, and how many there are."""
        numbers: dict[SamplingParams, int] = {}
        return self.column(lambda p: numbers.setdefault(p, len(numbers))), len(numbers)

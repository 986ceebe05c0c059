"""What is made once for rows that share their parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from umbel.ir.params import SamplingParams

Made = TypeVar("Made")
MOST_KEPT = 1_024


class ByParams(Generic[Made]):
    """Values that `make` gives for parameters, kept by their identity: comparing them in every step would cost more. Of
    a session that goes on and on, only so many are kept."""

    def __init__(self, make: Callable[[SamplingParams], Made]):
        self._make = make
        self._kept: dict[int, tuple[SamplingParams, Made]] = {}  # with the object, so that no other gets its id

    def of(self, params: SamplingParams) -> Made:
        """The value for some parameters."""
        found = self._kept.get(id(params))
        if found is None:
            if len(self._kept) == MOST_KEPT:
                self._kept.clear()
            found = self._kept[id(params)] = params, self._make(params)
        return found[1]

"""Keys that queries read where selectors pick some: for the price of a plan, and for what a meter counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.cost.windows import Windows
from umbel.ir.step import Step

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class KeyPrice(Protocol):
    """What a selector says of its price."""

    def keys_read(self, keys: Ints) -> Any:
        """The keys that queries read at most, of so many up to their own (any shape)."""
        ...


@dataclass(frozen=True, slots=True)
class SelectedKeys:
    """What the tokens of prompts and of answers read of `windows`, by the selector of each; None: all."""

    windows: Windows
    prompts: KeyPrice | None = None
    answers: KeyPrice | None = None

    def seen(self, keys: Ints, *, answers: bool) -> Floats:
        """Keys that queries read which have `keys` up to their own: the mean of the layers."""
        price = self.answers if answers else self.prompts
        read = keys if price is None else np.minimum(keys, price.keys_read(keys))
        return np.asarray(self.windows.seen(read), np.float64)

    def between(self, start: Ints, end: Ints, *, answers: bool) -> Floats:
        """Keys that the queries at positions `start` to `end` read together."""
        keys = np.arange(1, int(end.max(initial=0)) + 1)
        sums = np.append(0.0, np.cumsum(self.seen(keys, answers=answers)))
        return np.asarray(sums[end] - sums[start])

    def of_step(self, step: Step) -> float:
        """Keys that the tokens of a step read together."""
        keys, rows = step.positions + 1, step.row_end - step.row_begin
        none = np.zeros(len(rows), bool)
        answers, whole = (np.repeat(none if found is None else found, rows) for found in (step.answers, step.whole))
        prompts = self.seen(keys[~answers & ~whole], answers=False).sum()
        drawn = self.seen(keys[answers & ~whole], answers=True).sum()
        return float(prompts + drawn + self.windows.seen(keys[whole]).sum())

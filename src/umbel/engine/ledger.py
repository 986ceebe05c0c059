"""What each row has cost so far, so that a group of rows can be held to a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from umbel.ir.columns import Growable
from umbel.ir.sampled import Drawing

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spent:
    """What some rows have cost: tokens of their prompts (each as if nothing was shared), tokens of their
    answers that were drawn, tokens of context summed over their steps, and their part of the seconds of these steps, by
    draws."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    kv_token_steps: int = 0
    seconds: float = 0.0


class RowLedger(Growable):
    """Columns (`[rows]`) that grow by what each step does."""

    _FILLS: ClassVar[dict[str, float]] = {"_drawn": 0, "_kv": 0, "_seconds": 0.0}
    _drawn: Ints
    _kv: Ints
    _seconds: Floats

    def add_rows(self, count: int) -> None:
        """More rows, which have cost nothing."""
        self._grow(count)

    def add(self, drawing: Drawing, positions: Ints, seconds: float) -> None:
        """A step in which samples drew tokens at these positions (`[draws]`)."""
        np.add.at(self._kv, drawing.rows, positions[drawing.begin[:-1]])
        np.add.at(self._seconds, drawing.rows, drawing.counts * (seconds / max(len(positions), 1)))

    def count(self, drawing: Drawing, keep: Ints) -> None:
        """So many of the tokens that samples drew count (`[samples]`)."""
        np.add.at(self._drawn, drawing.rows, keep)

    def spent(self, rows: Ints, prompt_tokens: int) -> Spent:
        """What some rows have cost, with `prompt_tokens` in their prompts."""
        sums = (int(column[rows].sum()) for column in (self._drawn, self._kv))
        return Spent(prompt_tokens, *sums, float(self._seconds[rows].sum()))

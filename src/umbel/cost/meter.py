"""Counts what each step did and how long it took, in bounded memory, for fitting prices and for reports."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.cost.load import Load
from umbel.cost.selected import SelectedKeys
from umbel.cost.windows import WHOLE, Windows
from umbel.ir.step import Step

Floats = NDArray[np.float64]

ENTRIES = 4096
_COLUMNS = 7  # steps, tokens, samples, pairs, kv tokens read, random draws, seconds


class Meter:
    """Steps in the order in which they ran. When the entries are used up neighbours are merged, so that totals stay
    exact.

    `windows`: what the model's layers see; `selected`: what selectors leave of it to read.
    """

    def __init__(self, windows: Windows = WHOLE, entries: int = ENTRIES, selected: SelectedKeys | None = None):
        self._windows, self._selected = windows, selected
        self._table = np.zeros((entries + entries % 2, _COLUMNS))  # sums over the steps of an entry
        self._n = 0
        self._each = 1  # steps that make an entry
        self._open = np.zeros(_COLUMNS)

    def add(self, step: Step, kv_read: int, seconds: float) -> None:
        """Count a step that has run; `seconds` is all the time that the engine spent on it."""
        sums = self._open
        draws = int(np.count_nonzero(step.sampling.temperature))
        scored = 0 if step.scores is None else len(np.unique(step.scores.at))
        rows = _layers_passed(step)
        sums += (1.0, rows.sum(), len(step.sampling) + scored, self._pairs(step, rows), kv_read, draws, seconds)
        if sums[0] < self._each:
            return
        self._table[self._n] = sums
        sums[:] = 0.0
        self._n += 1
        if self._n == len(self._table):
            half = self._n // 2
            self._table[:half] = self._table[0::2] + self._table[1::2]
            self._n, self._each = half, 2 * self._each

    def clear(self) -> None:
        """Begin again, as if no step had run."""
        self._n, self._each = 0, 1
        self._open[:] = 0.0

    def load(self) -> Load:
        """The load of the steps, one entry each."""
        return Load(*self._means()[:-1])

    def seconds(self) -> Floats:
        """Seconds of one step, for each entry of `load`."""
        return self._means()[-1]

    @property
    def steps(self) -> int:
        """Steps counted."""
        return int(self._table[: self._n, 0].sum() + self._open[0])

    @property
    def total_seconds(self) -> float:
        """Seconds of all steps together."""
        return float(self._table[: self._n, -1].sum() + self._open[-1])

    def _means(self) -> tuple[Floats, ...]:
        """Columns of the entries, as means per step (except `steps`)."""
        rows = self._table[: self._n]
        if self._open[0]:
            rows = np.concatenate([rows, self._open[None]])
        steps = rows[:, 0]
        return steps.copy(), *(rows[:, i] / steps for i in range(1, _COLUMNS))

    def _pairs(self, step: Step, rows: Floats) -> float:
        """Pairs of a query and a key: each token of the step sees itself and the tokens before it in its window, in
        the share of the layers that it passes (`[rows]`)."""
        if self._selected is not None:
            return self._selected.of_step(step)
        return float((self._windows.seen(step.positions + 1) * rows).sum())


def _layers_passed(step: Step) -> Floats:
    """The share of the layers that each row of a step passes (`[rows]`)."""
    share = np.ones(step.n_rows)
    if step.group is not None:
        share[step.group.rows] = step.group.share
    return share

"""A runner without a model: every step takes the seconds that the price list says, and answers end at given lengths.

It stands where a device would, so scheduler, KV forest and loop run as they do in production, on a clock of their own.
"""

from __future__ import annotations

from array import array
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from umbel.cost.roofline import Load, Price
from umbel.cost.windows import WHOLE, Windows
from umbel.ir.scores import Scores, TokenScores
from umbel.ir.step import Step, StepResult
from umbel.ir.step_parts import only_rows, other_rows
from umbel.ir.workload import Workload
from umbel.runner.base import Wait, done

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

FILLER, END = -2, -1  # a token within an answer, and the one that ends it; no prompt holds them


class SimRunner:
    """Prices steps instead of computing them.

    `lengths`: `[rows]`, at least 1, tokens that each sample of a row generates, its end token included.
    `shared_reads`: attention reads the KV of every node once a step (prefix-shared attention). Otherwise each sequence
        reads its whole context, as in engines with one attention call a sequence.
    `seconds`: the virtual clock.
    `prompt_tokens`, `answer_tokens`: tokens whose KV was computed in all steps, recomputed ones included.
    `again`: prompt tokens that were fed again for their logits.
    """

    ahead = 0

    def __init__(
        self,
        price: Price,
        workload: Workload,
        lengths: Ints,
        *,
        shared_reads: bool = True,
        windows: Windows = WHOLE,
    ):
        self.price = price
        self.shared_reads = shared_reads
        self.windows = windows
        by_key = np.argsort(workload.keys)
        self._keys = workload.keys[by_key]
        last = np.diff(workload.offsets) + lengths - 1
        self._last: Ints = last[by_key]  # the position that the end token takes
        self._steps = tuple(array("d") for _ in range(7))
        self._fed = np.zeros(3, np.int64)

    def start(self, step: Step) -> Wait:
        """Let the step's seconds pass; samples that are as long as they get draw `END`."""
        fed = step.tokens != FILLER
        again = int(step.n_rows - step.fresh.sum())
        self._fed += (int(fed.sum()) - again, int(step.n_rows - fed.sum()), again)
        kv_read = _read_once(step) if self.shared_reads else _read_by_each(step)
        amounts = self._amounts(step, kv_read)
        seconds = self._seconds(amounts)
        if step.group is not None and len(step.group.rows):
            seconds = step.group.share * seconds + (1 - step.group.share) * self._without_group(step)
        for column, value in zip(self._steps, (*amounts, seconds), strict=True):
            column.append(value)
        bad = np.zeros(len(step.sampling), bool)
        scores = None if step.scores is None else _no_scores(step.scores)
        return done(StepResult(self._draw(step), bad, scores=scores, seconds=seconds, kv_tokens_read=int(kv_read)))

    def close(self) -> None:
        """Do nothing: there is no device."""

    @property
    def seconds(self) -> float:
        """Virtual time since the start."""
        return float(self.seconds_of_steps.sum())

    @property
    def seconds_of_steps(self) -> Floats:
        """Virtual seconds of every step so far (`[steps]`)."""
        return np.array(self._steps[-1])

    @property
    def load(self) -> Load:
        """The load of every step so far."""
        return Load(*(np.array(column) for column in self._steps[:-1]))

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens computed, repetitions included."""
        return int(self._fed[0])

    @property
    def answer_tokens(self) -> int:
        """Answer tokens fed, those of rebuilt answers included."""
        return int(self._fed[1])

    @property
    def again(self) -> int:
        """Prompt tokens fed once more for their logits although their KV was there."""
        return int(self._fed[2])

    def _amounts(self, step: Step, kv_read: int) -> tuple[float, ...]:
        """The columns of this one step's Load."""
        pairs = float(self.windows.seen(step.positions + 1).sum())
        sampling = step.sampling
        logits = len(sampling) + (0 if step.scores is None else len(np.unique(step.scores.at)))
        return 1, step.n_rows, logits, pairs, kv_read, int((sampling.temperature > 0).sum())

    def _seconds(self, amounts: tuple[float, ...]) -> float:
        """What the price list says of a step."""
        return float(self.price.each(Load(*(np.array([float(value)]) for value in amounts)))[0])

    def _without_group(self, step: Step) -> float:
        """The seconds of the rows alone that pass all layers."""
        others = other_rows(step)
        if not len(others):
            return 0.0
        apart = np.isin(step.sampling.at, others)
        drawn = replace(step.sampling, at=step.sampling.at[apart], temperature=step.sampling.temperature[apart])
        rest = only_rows(replace(step, sampling=drawn), others)
        return self._seconds(self._amounts(rest, _read_once(rest) if self.shared_reads else _read_by_each(rest)))

    def _draw(self, step: Step) -> Ints:
        sampling = step.sampling
        last = self._last[np.searchsorted(self._keys, sampling.keys)]
        return np.where(sampling.positions >= last, END, FILLER)


def _no_scores(asked: Scores) -> TokenScores:
    """Log-probabilities of 0, as nothing is computed."""
    shape = len(asked), asked.top
    return TokenScores(np.zeros(len(asked)), np.zeros(shape, np.int64), np.zeros(shape))


def _read_once(step: Step) -> int:
    """KV tokens of all nodes in the step: rows read their paths together."""
    return int((step.end - step.start).sum())


def _read_by_each(step: Step) -> int:
    """KV tokens when every sequence reads its whole context: the ends of the nodes below which no other row stands."""
    ends = (step.row_end > step.row_begin) & (step.below_end == step.row_end)
    return int(step.end[ends].sum())

"""What a loop still has to do: tokens, and seconds at the pace of its last steps.

Lengths of answers are those that admission believes in: learned as answers end, and cut by the limits of the rows. A
step takes a fixed time and one for each token, fitted to the last steps. Samples that wait run beside as many as run
now; then, as no more come, steps hold the samples that are still expected to be alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cost.lengths import LengthCurve
from umbel.cost.nonnegative import solve_nonnegative
from umbel.engine.loop import Loop
from umbel.ir.distinct import Distinct
from umbel.ir.params import SamplingParams
from umbel.ir.report import Left
from umbel.plan.passes.lengths import UNBOUNDED

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

RECENT_STEPS = 256  # whose pace is expected of the next ones
LEAST_STEPS = 8
POINTS = 64  # of the time that is left at which the samples alive are counted
EVERY_SECONDS = 0.5
SHARE = 0.01  # of the time that forecasts may take


class Outlook:
    """What is left to do in the loop that runs, renewed now and then; may be read from any thread."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.left = Left()
        self._clock = clock
        self._next = 0.0
        self._ends = RowEnds.of(())

    def look(self, loop: Loop) -> None:
        """Renew it where it is due, between two steps of a loop."""
        began = self._clock()
        if began < self._next:
            return
        params = loop.scheduler.requests.params
        if len(params) != len(self._ends.fixed):
            self._ends = RowEnds.of(params)
        self.left = left_of(loop, self._ends)
        took = self._clock() - began
        self._next = began + max(EVERY_SECONDS, took / SHARE)

    def over(self) -> None:
        """A loop has ended."""
        self.left, self._next, self._ends = Left(seconds=0.0), 0.0, RowEnds.of(())


@dataclass(frozen=True, slots=True)
class RowEnds:
    """What may end answers, by row (`[rows]`): `fixed` where it is their limit alone, `free` where they set none."""

    fixed: Flags
    free: Flags

    @classmethod
    def of(cls, params: Sequence[SamplingParams]) -> RowEnds:
        """What may end the answers of rows with such parameters."""
        distinct = Distinct.of(params)
        fixed = distinct.flags(lambda p: p.ignore_eos and not (p.stop or p.stop_token_ids))
        return cls(fixed, distinct.flags(lambda p: p.max_tokens is None))


def left_of(loop: Loop, ends: RowEnds) -> Left:
    """What a loop has left to do."""
    scheduler = loop.scheduler
    seqs, limits = scheduler.seqs, scheduler.requests.limit
    slots = np.fromiter(seqs.slot_of.values(), np.int64, len(seqs.slot_of))
    running = _Samples(loop, ends, seqs.row[slots], seqs.n_out[slots], seqs.max_out[slots])
    rows = scheduler.waiting.rows_to_start()
    to_start = _Samples(loop, ends, rows, np.zeros(len(rows), np.int64), limits[rows]).tokens()
    prompts = max(0, scheduler.planned_tokens - scheduler.computed_tokens)
    tokens, pace = running.tokens() + to_start, _pace(loop)
    if pace is None:
        return Left(tokens, prompts)
    step, token = pace
    beside = max(seqs.n_running, min(scheduler.peak_running, len(slots) + len(rows)), 1)
    seconds = prompts * token + to_start * (step / beside + token) + running.seconds(step, token)
    return Left(tokens, prompts, seconds)


class _Samples:
    """Samples of these rows (`[samples]`) that have made so many tokens of at most so many."""

    def __init__(self, loop: Loop, ends: RowEnds, rows: Ints, made: Ints, most: Ints):
        lengths = loop.scheduler.lengths
        self._curve = lambda group: LengthCurve.none() if group < 0 else lengths.curve(group)
        self._groups = np.where(ends.fixed[rows], -1, lengths.groups[rows])
        self._made = np.minimum(made, most)
        self._most = most.copy()
        for group in np.unique(self._groups).tolist():
            of, curve = self._groups == group, self._curve(group)
            outlived = of & (curve.survival(self._made) <= 0)  # all that were seen: it may go on as long again
            self._most[outlived] = np.minimum(most[outlived], 2 * self._made[outlived] + 1)
            if not curve.answers:  # nothing is known of it: a plan assumes a number, too
                free = of & ends.free[rows]
                self._most[free] = np.minimum(most[free], np.maximum(made[free] + 1, UNBOUNDED))

    def tokens(self) -> float:
        """The tokens that they are expected to write yet, all together."""
        left = 0.0
        for group in np.unique(self._groups).tolist():
            of = self._groups == group
            left += float((self._curve(group).mean(self._most[of], self._made[of]) - self._made[of]).sum())
        return left

    def seconds(self, step: float, token: float) -> float:
        """How long it takes until all have ended, when each step takes so long, and so long more for each token."""
        if not len(self._groups):
            return 0.0
        longest = int((self._most - self._made).max())
        after = np.unique(np.geomspace(1, longest + 1, POINTS).astype(np.int64)) - 1
        alive = np.zeros(len(after))
        for group in np.unique(self._groups).tolist():
            alive += self._alive(group, after)
        cost = step * -np.expm1(-alive) + token * alive
        return float((cost[:-1] * np.diff(after)).sum() + cost[-1])

    def _alive(self, group: int, after: Ints) -> Floats:
        """How many samples of a group are expected to be alive after so many more steps (`[points]`)."""
        of, curve = self._groups == group, self._curve(group)
        made, reached = self._made[of][:, None], self._made[of][:, None] + after[None, :]
        now, then = curve.survival(made), curve.survival(reached)
        share = np.where(now > 0, then / np.where(now > 0, now, 1.0), 1.0)  # outlived all: it runs to its limit
        found: Floats = (share * (reached < self._most[of][:, None])).sum(0)
        return found


def _pace(loop: Loop) -> tuple[float, float] | None:
    """Seconds of a step, and of each token in it, by the last steps; None where there were too few."""
    load, seconds = loop.meter.load(), loop.meter.seconds()
    if load.steps.sum() < LEAST_STEPS:
        return None
    weight = np.sqrt(load.steps[-RECENT_STEPS:])
    tokens, took = load.tokens[-RECENT_STEPS:], seconds[-RECENT_STEPS:]
    features = np.stack([np.ones_like(tokens), tokens], axis=1) * weight[:, None]
    scale = np.maximum(np.abs(features).max(axis=0), 1e-12)
    features = features / scale
    found = solve_nonnegative(features.T @ features, features.T @ (took * weight)) / scale
    return float(found[0]), float(found[1])

"""What a loop still has to do: tokens, and seconds at the pace of its last steps.

Lengths of answers are those that admission believes in: learned as answers end, and cut by the limits of the rows. A
step takes a fixed time and one for each token, fitted to the last steps. Samples that wait run beside as many as run
now; then, as no more come, steps hold the samples that are still expected to be alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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

RECENT_STEPS = 32  # whose pace is expected of the next ones
LEAST_STEPS = 3
FULL = 0.8  # of its budget, from which on a step counts as full
FIXED = -1  # the group of answers that their limit alone ends
POINTS = 64  # of the time that is left at which the samples alive are counted
EVERY_SECONDS = 0.5
SHARE = 0.02  # of the time that forecasts may take


class Outlook:
    """What is left to do in the loop that runs, renewed now and then; may be read from any thread."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._left, self._at = Left(), 0.0
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
        self._left, self._at = left_of(loop, self._ends), began
        took = self._clock() - began
        self._next = began + max(EVERY_SECONDS, took / SHARE)

    def left(self) -> Left:
        """What is left now, as it looked last."""
        left, since = self._left, self._clock() - self._at
        return left if left.seconds is None else replace(left, seconds=max(0.0, left.seconds - since))

    def over(self) -> None:
        """A loop has ended."""
        self._left, self._next, self._ends = Left(seconds=0.0), 0.0, RowEnds.of(())


@dataclass(frozen=True, slots=True)
class RowEnds:
    """What may end answers, by row (`[rows]`): `fixed` where it is their limit alone, `free` where they set none."""

    fixed: Flags
    free: Flags

    @classmethod
    def of(cls, params: Sequence[SamplingParams]) -> RowEnds:
        """What may end the answers of rows with such parameters."""
        distinct = Distinct.of(params)
        fixed = distinct.flags(lambda p: p.ignore_eos and not p.ends_early)
        return cls(fixed, distinct.flags(lambda p: p.max_tokens is None))


def left_of(loop: Loop, ends: RowEnds) -> Left:
    """What a loop has left to do."""
    scheduler = loop.scheduler
    seqs, limits = scheduler.seqs, scheduler.requests.limit
    slots = np.fromiter(seqs.slot_of.values(), np.int64, len(seqs.slot_of))
    rows, made = seqs.row[slots], seqs.n_out[slots]
    groups = np.where(ends.fixed, FIXED, scheduler.lengths.groups[: len(ends.fixed)])
    endings = _Endings(scheduler.lengths.curve, groups[rows], made)
    after, alive = endings.alive(groups[rows], made, _most(ends, endings, groups, rows, made, seqs.max_out[slots]))
    new = scheduler.waiting.rows_to_start()
    begin = np.zeros(len(new), np.int64)
    later, waiting = endings.alive(groups[new], begin, _most(ends, endings, groups, new, begin, limits[new]))
    to_start, running = _summed(waiting, later), _summed(alive, after)
    prompts, pace = max(0, scheduler.planned_tokens - scheduler.computed_tokens), _pace(loop)
    if pace is None:
        return Left(running + to_start, prompts)
    step, token = pace
    beside = max(seqs.n_running, min(scheduler.peak_running, len(slots) + len(new)), 1)
    recent = loop.meter.load().tokens[-LEAST_STEPS:]
    prompts_wait = prompts > 0 and recent.mean() > FULL * scheduler.chunk  # for room in steps, not for others to end
    steps = prompts / scheduler.chunk if prompts_wait else to_start / beside
    steps += _summed(-np.expm1(-alive), after)
    return Left(running + to_start, prompts, steps * step + (prompts + running + to_start) * token)


def _most(ends: RowEnds, endings: _Endings, groups: Ints, rows: Ints, made: Ints, most: Ints) -> Ints:
    """The most tokens that samples of rows may have; where nothing is known, as many as a plan assumes."""
    free = ends.free[rows] & ~np.isin(groups[rows], endings.known)
    return np.where(free, np.minimum(most, np.maximum(made + 1, UNBOUNDED)), most)


def _summed(alive: Floats, after: Ints) -> float:
    """The sum over all steps of what is given for some (`after`, `[points]`)."""
    return float((alive[:-1] * np.diff(after)).sum() + alive[-1]) if len(after) else 0.0


class _Endings:
    """How answers of groups end: as those that ended, with those that run counted as at least so long (Kaplan and
    Meier), and beyond the longest at the mean rate of all. `known`: the groups of which an answer has ended."""

    def __init__(self, curve: Callable[[int], LengthCurve], groups: Ints, made: Ints):
        self._curve, self._groups, self._made = curve, groups, made
        self._found: dict[int, tuple[LengthCurve, float]] = {}
        self.known = [group for group in np.unique(groups).tolist() if group != FIXED and self._of(group)[1] > 0.0]

    def _of(self, group: int) -> tuple[LengthCurve, float]:
        """The curve of a group, and the share of answers that end with a token."""
        if group not in self._found:
            run = self._made[self._groups == group]
            seen = self._curve(group).joined(LengthCurve.of(run[:0], run[run > 0]))
            tokens = float((seen.lengths * (seen.counts + seen.stopped)).sum())
            self._found[group] = seen, float(seen.counts.sum()) / tokens if tokens else 0.0
        return self._found[group]

    def alive(self, groups: Ints, made: Ints, most: Ints) -> tuple[Ints, Floats]:
        """How many of some samples are expected to be alive after so many more steps: both `[points]`."""
        if not len(groups):
            return np.zeros(0, np.int64), np.zeros(0)
        longest = max(int((most - made).max()), 1)
        after = np.unique(np.geomspace(1, longest + 1, POINTS).astype(np.int64)) - 1
        alive = np.zeros(len(after))
        kinds, counts = np.unique(np.stack([groups, made, most]), axis=1, return_counts=True)
        for group in np.unique(kinds[0]).tolist():
            of = kinds[0] == group
            begin, reached = kinds[1, of][:, None], kinds[1, of][:, None] + after[None, :]
            share = self._share(group, begin, reached) * (reached < kinds[2, of][:, None])
            alive += (share * counts[of][:, None]).sum(0)
        return after, alive

    def _share(self, group: int, begin: Ints, reached: Ints) -> Floats:
        """The share of answers that get there, of those that got where they begin."""
        if group == FIXED:
            return np.ones(reached.shape)
        curve, rate = self._of(group)
        longest = int(curve.lengths.max(initial=0))
        now, then = curve.survival(begin), curve.survival(np.minimum(reached, longest))
        tail = np.exp(-rate * np.maximum(reached - np.maximum(begin, longest), 0))
        if not len(curve.lengths):
            return np.ones(reached.shape)
        # Where the longest one ended, others would go on: half of those that end there, but no more than one in n + 1.
        on = min(float(curve.survival(max(longest - 1, 0))) * 0.5, 1.0 / (curve.answers + 1.0))
        then = np.where(reached >= longest, np.maximum(then, on), then)
        now = np.where(begin >= longest, np.maximum(now, on), now)
        found: Floats = np.minimum(then / np.maximum(now, 1e-12), 1.0) * tail
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

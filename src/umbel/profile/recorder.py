"""Records where the engine's time goes: totals of everything, and a timeline of some of it, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from umbel.cost.operators import Ceilings, Operator, StepWork, kind_of, operators
from umbel.cost.windows import WHOLE, Windows
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.profile.profile import OUTSIDE, Profile, Tally
from umbel.profile.timeline import RunTimeline, Slice, StepSlice

T = TypeVar("T")

OTHER = "other"  # time between the last lap and the end of what it was in
RECORDING = "recording"  # time that the recorder itself takes between steps
PENDING = 4096  # laps outside of steps that are held before they are counted


class Recorder:
    """The `Spans` of a profile. Times are those of `clock`, in nanoseconds; `began` is when the first lap began.

    Before `meet` names the model, steps are counted without floors and as of one kind. On a device that works
    asynchronously `synchronize` waits for it, so that each lap holds the whole of its operator; the run is slower for
    that.
    """

    def __init__(
        self,
        began: int | None = None,
        timeline: RunTimeline | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ):
        self.timeline = timeline or RunTimeline()
        self._clock = clock
        self._mark = clock() if began is None else began
        self._began = self._mark
        self._laps: list[tuple[str, int]] = []  # names and ends, since `_mark`
        self._tallies: dict[str, Tally] = {}
        self._operators: tuple[Operator, ...] = ()
        self._ceilings: Ceilings | None = None
        self._measure: Callable[[], Ceilings] | None = None
        self._windows = WHOLE
        self._synchronize: Callable[[], None] | None = None
        self._in_step = False
        self._lap_ns = 0.0
        self._n_laps = 0

    def meet(
        self,
        spec: ModelSpec,
        dtype: str,
        measure: Callable[[], Ceilings],
        synchronize: Callable[[], None] | None = None,
    ) -> None:
        """Set the model whose steps follow, and `measure`, which gives the ceilings of the device."""
        self._operators, self._windows = operators(spec, dtype), Windows.of(spec)
        self._synchronize = synchronize
        self._measure, self._ceilings = measure, measure()
        scratch = Recorder(clock=self._clock)
        began = self._clock()
        for _ in range(PENDING // 4):
            scratch.lap(OTHER, None)
        self._lap_ns = (self._clock() - began) / (PENDING // 4)

    def lap(self, name: str, value: T) -> T:
        """Implement `Spans.lap`."""
        if self._synchronize is not None:
            self._synchronize()
        self._laps.append((name, self._clock()))
        if len(self._laps) >= PENDING and not self._in_step:
            self._count_outside()
        return value

    def open(self) -> None:
        """Implement `Spans.open`."""
        self._count_outside()
        self._in_step = True

    def close(self, step: Step, kv_read: int) -> None:
        """Implement `Spans.close`."""
        began, slices = self._mark, tuple(self._take())
        work = StepWork.of(step, kv_read, self._windows)
        kind = kind_of(work, self._operators)
        tally = self._tallies.setdefault(kind, Tally())
        tally.add_step(work, slices, self._operators, self._ceilings)
        self.timeline.add_step(StepSlice(kind, began, self._mark, work, slices))
        self._laps.append((RECORDING, self._clock()))
        self._in_step = False

    def profile(self) -> Profile:
        """The profile of the run so far. The device is measured once more and the better figures count: a single
        measurement is too low when other work ran beside it."""
        if self._ceilings is not None and self._measure is not None:
            self._ceilings = self.lap("measuring the machine", self._ceilings.or_better(self._measure()))
        self._count_outside()
        laps = self._n_laps * self._lap_ns / 1e9
        return Profile.of(self._tallies, self._ceilings, (self._mark - self._began) / 1e9, laps)

    def _count_outside(self) -> None:
        slices = tuple(self._take())
        self._tallies.setdefault(OUTSIDE, Tally()).add(slices)
        self.timeline.add_outside(tuple(s for s in slices if s.name != RECORDING))
        self._in_step = False

    def _take(self) -> Iterator[Slice]:
        """The spans since the mark, without a gap; the mark moves to now."""
        laps, self._laps = self._laps, []
        self._n_laps += len(laps)
        for name, end in (*laps, (OTHER, self._clock())):
            yield Slice(name, self._mark, end)
            self._mark = end

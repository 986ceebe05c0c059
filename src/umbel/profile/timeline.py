"""A timeline of a run in bounded memory: its first steps and a sample of later ones in full, the rest as sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from umbel.cost.operators import StepWork

FIRST = 64  # steps kept in full from the start
LATER = 128  # at most, of all that follow, evenly apart
SPANS = 2048  # at most, of steps in summary, and of pieces outside of steps


@dataclass(frozen=True, slots=True)
class Slice:
    """A named span of time from `begin` to `end`, in nanoseconds."""

    name: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class StepSlice:
    """One step with its parts."""

    kind: str
    begin: int
    end: int
    work: StepWork
    parts: tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class StepSums:
    """Sums over the consecutive steps `first` to `last` (counted from 1)."""

    first: int
    last: int
    begin: int
    end: int
    tokens: int

    def with_next(self, other: StepSums) -> StepSums:
        """The sums of this stretch and the next."""
        return StepSums(self.first, other.last, self.begin, other.end, self.tokens + other.tokens)


class RunTimeline:
    """Collects steps as they end. When a list is full, every second later step is dropped, and sums are merged in
    pairs."""

    def __init__(self, first: int = FIRST, later: int = LATER, spans: int = SPANS):
        self._rooms = first, later + later % 2, spans + spans % 2
        self.first: list[tuple[int, StepSlice]] = []
        self.later: list[tuple[int, StepSlice]] = []
        self.summaries: list[StepSums] = []
        self.outside: list[Slice] = []
        self.n_steps = 0
        self.outside_left_out = 0
        self._stride = 1  # every so many later steps are kept
        self._each = 1  # steps of a summary
        self._open: StepSums | None = None

    def add_step(self, step: StepSlice) -> None:
        """Add a step that has ended."""
        self.n_steps += 1
        first, later, _ = self._rooms
        if len(self.first) < first:
            self.first.append((self.n_steps, step))
            return
        self._summarise(StepSums(self.n_steps, self.n_steps, step.begin, step.end, step.work.tokens))
        if (self.n_steps - first - 1) % self._stride:
            return
        self.later.append((self.n_steps, step))
        if len(self.later) == later:
            del self.later[1::2]
            self._stride *= 2

    def add_outside(self, slices: tuple[Slice, ...]) -> None:
        """Add the time between steps; spans shorter than a microsecond are dropped."""
        kept = [s for s in slices if s.end - s.begin >= 1000]
        room = self._rooms[2] - len(self.outside)
        self.outside += kept[:room]
        self.outside_left_out += len(kept[room:])

    def all_summaries(self) -> Iterator[StepSums]:
        """The sums of the steps after the first ones, without a gap in their count."""
        yield from self.summaries
        if self._open is not None:
            yield self._open

    def _summarise(self, step: StepSums) -> None:
        held = step if self._open is None else self._open.with_next(step)
        if held.last - held.first + 1 < self._each:
            self._open = held
            return
        self._open = None
        self.summaries.append(held)
        if len(self.summaries) == self._rooms[2]:
            pairs = zip(self.summaries[0::2], self.summaries[1::2], strict=True)
            self.summaries = [a.with_next(b) for a, b in pairs]
            self._each *= 2

"""Where a run's seconds went, by kind of step and operator, beside the least time that this work takes on the
machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from umbel.cost.operators import KINDS, Ceilings, Operator, StepWork
from umbel.profile.timeline import Slice

OUTSIDE = "outside of steps"


@dataclass(slots=True)
class Count:
    """Sums over the uses of one operator, or of another part of the engine's work.

    `bound_flops`: FLOPs of the steps in which its arithmetic takes longer than its memory traffic.
    `bound_bytes`: its bytes in the other steps.
    """

    calls: int = 0
    nanoseconds: int = 0
    flops: int = 0
    n_bytes: int = 0
    bound_flops: int = 0
    bound_bytes: int = 0


class Tally:
    """Sums over the steps of one kind, or over the time outside of steps."""

    def __init__(self) -> None:
        self.counts: dict[str, Count] = {}
        self.steps = 0
        self.tokens = 0
        self.decoding = 0
        self.samples = 0

    def add(self, slices: Iterable[Slice]) -> None:
        """Add spans of time."""
        for piece in slices:
            count = self._count(piece.name)
            count.calls += 1
            count.nanoseconds += piece.end - piece.begin

    def add_step(
        self, work: StepWork, slices: Iterable[Slice], operators: Iterable[Operator], ceilings: Ceilings | None
    ) -> None:
        """Add a step: the time that it took, and what its work needs."""
        self.add(slices)
        self.steps += 1
        self.tokens += work.tokens
        self.decoding += work.decoding
        self.samples += work.samples
        if ceilings is None:
            return
        for operator in operators:
            count, flops, n_bytes = self._count(operator.name), operator.flops(work), operator.n_bytes(work)
            count.flops += flops
            count.n_bytes += n_bytes
            if flops / ceilings.flops >= n_bytes / ceilings.memory_rate:
                count.bound_flops += flops
            else:
                count.bound_bytes += n_bytes

    def _count(self, name: str) -> Count:
        found = self.counts.get(name)
        if found is None:
            found = self.counts[name] = Count()
        return found


@dataclass(frozen=True, slots=True)
class ProfilePart:
    """One operator, or another part of the engine's work (whose floors are 0).

    `seconds`: the time it took.
    `arithmetic`, `memory`: seconds that its FLOPs and its bytes take at the ceilings.
    `floor`: the longer of the two in each step, summed over the steps.
    """

    name: str
    calls: int
    seconds: float
    flops: float
    n_bytes: float
    arithmetic: float
    memory: float
    floor: float

    @classmethod
    def of(cls, name: str, count: Count, ceilings: Ceilings | None) -> ProfilePart:
        """The part for what was counted."""
        seconds = count.nanoseconds / 1e9
        if ceilings is None:
            return cls(name, count.calls, seconds, 0, 0, 0, 0, 0)
        arithmetic, memory = count.flops / ceilings.flops, count.n_bytes / ceilings.memory_rate
        floor = count.bound_flops / ceilings.flops + count.bound_bytes / ceilings.memory_rate
        return cls(name, count.calls, seconds, count.flops, count.n_bytes, arithmetic, memory, floor)

    @property
    def bound(self) -> str:
        """What limits it at the ceilings: "arithmetic", "memory", or "" for a part without a floor."""
        return "" if not self.floor else "arithmetic" if self.arithmetic >= self.memory else "memory"

    @property
    def over(self) -> float:
        """Seconds above the floor: the most that could be gained."""
        return self.seconds - self.floor

    def as_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        share = self.floor / self.seconds if self.floor and self.seconds else None
        return asdict(self) | {"bound": self.bound or None, "over_floor": self.over, "of_floor": share}


@dataclass(frozen=True, slots=True)
class KindProfile:
    """The steps of one kind (or the time outside of steps): how many there are, and their parts, the longest first."""

    kind: str
    steps: int
    tokens: int
    decoding: int
    samples: int
    parts: tuple[ProfilePart, ...]

    @property
    def total(self) -> ProfilePart:
        """The sum of the parts. Its floor is the sum of theirs, as a step runs its operators one after the other."""
        names = [f.name for f in fields(ProfilePart)][1:]
        return ProfilePart("all", **{name: sum(getattr(p, name) for p in self.parts) for name in names})

    def as_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        counts = {name: getattr(self, name) for name in ("kind", "steps", "tokens", "decoding", "samples")}
        return counts | {"total": self.total.as_dict(), "parts": [part.as_dict() for part in self.parts]}


@dataclass(frozen=True, slots=True)
class Profile:
    """The profile of a whole run.

    `seconds`: from its first moment to its last.
    `laps`: about how many of them went into reading the clock; other costs of recording are a part of the time outside
        of steps.
    """

    kinds: tuple[KindProfile, ...]
    outside: KindProfile
    ceilings: Ceilings | None
    seconds: float
    laps: float

    @classmethod
    def of(cls, tallies: Mapping[str, Tally], ceilings: Ceilings | None, seconds: float, laps: float) -> Profile:
        """The profile for what was counted. A rate that an operator has reached is within the machine's means, so it
        raises the ceiling."""
        if ceilings is not None:
            ceilings = _raised(ceilings, tallies)
        kinds = tuple(_kind(name, tallies[name], ceilings) for name in KINDS if name in tallies)
        outside = _kind(OUTSIDE, tallies.get(OUTSIDE, Tally()), None)
        return cls(kinds, outside, ceilings, seconds, laps)

    @property
    def in_steps(self) -> float:
        """Seconds of the steps together."""
        return sum(kind.total.seconds for kind in self.kinds)

    def as_dict(self) -> dict[str, Any]:
        """The figures, for JSON: seconds, FLOPs and bytes."""
        return {
            "seconds": self.seconds,
            "seconds_in_steps": self.in_steps,
            "seconds_of_laps": self.laps,
            "ceilings": None if self.ceilings is None else asdict(self.ceilings),
            "kinds": [kind.as_dict() for kind in self.kinds],
            "outside": self.outside.as_dict(),
        }


def _kind(name: str, tally: Tally, ceilings: Ceilings | None) -> KindProfile:
    parts = [ProfilePart.of(part, count, ceilings) for part, count in tally.counts.items() if count.calls]
    parts.sort(key=lambda part: (-part.seconds, part.name))
    return KindProfile(name, tally.steps, tally.tokens, tally.decoding, tally.samples, tuple(parts))


def _raised(ceilings: Ceilings, tallies: Mapping[str, Tally]) -> Ceilings:
    """Ceilings that no operator exceeds in arithmetic, on the average of the steps of a kind."""
    for kind, tally in tallies.items():
        for name, count in tally.counts.items():
            rate = count.flops / (count.nanoseconds / 1e9) if count.nanoseconds else 0.0
            if rate > ceilings.flops:
                ceilings = ceilings.with_flops(rate, f"reached by {name} in {kind} steps")
    return ceilings

"""Other work on the processors while a job runs: it makes times longer than any plan expects."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

NOTABLE = 0.15  # of all processors: other work that takes less is not mentioned
LEAST_SECONDS = 1.0  # a shorter job says too little: the counters tick a hundred times a second


@dataclass(frozen=True, slots=True)
class Used:
    """Processor seconds used so far by the whole machine, and of them by this process and its children; the moment."""

    everyone: float
    own: float
    at: float


def used_now() -> Used | None:
    """What the kernel counts; None where it does not show it."""
    try:
        ticks = os.sysconf("SC_CLK_TCK")
        line = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        user, nice, system, _, _, irq, soft, *_ = map(int, line)
        children = sum(_ticks_of(pid) for pid in _children()) / ticks
        return Used((user + nice + system + irq + soft) / ticks, sum(os.times()[:4]) + children, time.monotonic())
    except (OSError, ValueError, AttributeError):
        return None


def _children() -> Iterator[int]:
    """Processes that this one has started and that run."""
    for task in Path("/proc/self/task").iterdir():
        yield from map(int, (task / "children").read_text().split())


def _ticks_of(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0  # it has just ended
    return int(fields[11]) + int(fields[12])


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The work of others since this was made; `look` says what is used by whom."""

    look: Callable[[], Used | None] = used_now
    processors: int = field(default_factory=lambda: os.cpu_count() or 1)
    _begin: Used | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_begin", self.look())

    def busy(self) -> float | None:
        """The number of processors that others kept busy on average; None where it is small, or not known."""
        begin, now = self._begin, self.look()
        if begin is None or now is None or now.at - begin.at < LEAST_SECONDS:
            return None
        taken = (now.everyone - begin.everyone - (now.own - begin.own)) / (now.at - begin.at)
        return round(taken, 2) if taken >= NOTABLE * self.processors else None

    def text(self) -> str:
        """What there is to say of others, "" for nothing."""
        busy = self.busy()
        return "" if busy is None else f"beside other work, which kept {busy:.1f} of {self.processors} processors busy"

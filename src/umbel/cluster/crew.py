"""Who of the replicas is there, who wants rows, and what each has done: the books that `Replicas` keeps of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from umbel.cluster.executor import Event
from umbel.cluster.nodes import SAME, differences
from umbel.errors import UmbelError
from umbel.ir.report import Stats
from umbel.ir.tally import COUNTS, LOADING, LOST, RUNNING, WAITING, ReplicaTally


@dataclass(slots=True)
class _Member:
    """A replica: of its process now the totals (`stats`) and the lots that are not done, of earlier ones `past`."""

    stats: Stats = field(default_factory=Stats)
    past: Stats = field(default_factory=Stats)
    open_lots: set[int] = field(default_factory=set)
    ready: bool = False
    lost: bool = False
    on: str = ""
    differs: str = ""
    rows: int = 0
    lots: int = 0
    stolen: int = 0
    restarts: int = 0
    dealt_again: int = 0
    doubled: int = 0
    seconds: float = 0.0
    idle_seconds: float = 0.0
    since: float | None = None  # up to when its time is counted; None while there is nothing to run

    @property
    def state(self) -> str:
        """What it does, by the names of ReplicaTally."""
        if not self.ready:
            return LOST if self.lost else LOADING
        return RUNNING if self.open_lots else WAITING

    def count_time(self, now: float) -> None:
        """Count the time since the last call, if there was something to run, as what it did in it."""
        self.seconds, self.idle_seconds = self.times(now)
        self.since = None if self.since is None else now

    def times(self, now: float) -> tuple[float, float]:
        """Seconds with rows to run, and without any, until now."""
        if self.since is None or not self.ready:
            return self.seconds, self.idle_seconds
        passed = now - self.since
        return (
            (self.seconds + passed, self.idle_seconds) if self.open_lots else (self.seconds, self.idle_seconds + passed)
        )

    def tally(self, number: int, now: float) -> ReplicaTally:
        """All of it."""
        total, (seconds, idle) = self.past.plus(self.stats), self.times(now)
        own = {name: getattr(self, name) for name in ("state", "on", "differs", "rows", *COUNTS)}
        computed, drawn = total.computed_prompt_tokens, total.output_tokens
        return ReplicaTally(
            number, prompt_tokens=computed, output_tokens=drawn, seconds=seconds, idle_seconds=idle, **own
        )


class Crew:
    """`count` replicas, by number: those that are `ready`, and of these those `wanting` rows that got none yet.

    `mixed`: they may be of several installations and kinds of machines.
    """

    def __init__(self, count: int, *, mixed: bool = False, clock: Callable[[], float] = time.monotonic):
        self.ready: set[int] = set()
        self.wanting: set[int] = set()
        self._mixed, self._clock = mixed, clock
        self._members = [_Member() for _ in range(count)]
        self._made: dict[str, str] = {}  # what the first of them says that its answers depend on
        self._lost = 0

    def join(self, event: Event) -> dict[str, Any]:
        """Take in a replica that is loaded; returns what it told. Raises UmbelError where its answers would be others
        than those of the first: another model, or where that is not allowed another installation or processor."""
        told: dict[str, Any] = json.loads(event.data)
        made, member = told.get("made", {}), self._members[event.replica]
        self._made = self._made or made
        differs = differences(made, self._made)
        if [name for name in differs if not self._mixed or name in SAME]:
            allow = "" if set(differs) & set(SAME) else ", or allow it with --mixed-replicas --allow-lossy"
            raise UmbelError(
                f"replica {event.replica} on {told['on']} would answer with other bits: {'; '.join(differs.values())}; "
                f"take machines and installations that are alike{allow}"
            )
        self.ready.add(event.replica)
        member.on, member.differs = told.get("on", ""), "; ".join(differs.values())
        member.count_time(self._clock())
        member.ready, member.lost = True, False
        return told

    def want(self, replica: int) -> None:
        """It has asked for rows."""
        self.wanting.add(replica)

    def give(self, replica: int, lot: int, *, stolen: bool, doubled: int = 0) -> None:
        """It gets a lot, which another was planned to run if it is `stolen`; `doubled` of its rows another runs too."""
        member = self._members[replica]
        member.count_time(self._clock())
        member.open_lots.add(lot)
        member.lots += 1
        member.stolen += stolen
        member.doubled += doubled
        self.wanting.discard(replica)

    def answered(self, replica: int) -> None:
        """It has answered a row."""
        self._members[replica].rows += 1

    def told(self, replica: int, stats: Stats) -> None:
        """It has said what its process has done so far."""
        self._members[replica].stats = stats

    def done(self, replica: int, lot: int) -> None:
        """It is through with a lot."""
        member = self._members[replica]
        member.count_time(self._clock())
        member.open_lots.discard(lot)

    def lose(self, replica: int, dealt_again: int) -> None:
        """Its process is lost, with so many rows that are dealt again."""
        self.leave(replica)
        member = self._members[replica]
        member.lost = True
        member.dealt_again += dealt_again
        self._lost += 1

    def start(self, replicas: list[int]) -> None:
        """Processes of these are started, those that were lost once more."""
        for member in (self._members[number] for number in replicas):
            member.restarts += member.lost
            member.lost = False

    def leave(self, replica: int) -> None:
        """Its process has ended."""
        member = self._members[replica]
        member.count_time(self._clock())
        self.ready.discard(replica)
        self.wanting.discard(replica)
        member.past, member.stats, member.ready = member.past.plus(member.stats), Stats(), False
        member.open_lots.clear()

    def begin(self) -> None:
        """There are rows to run: from now on a replica without any is idle."""
        for member in self._members:
            member.since = self._clock()

    def end(self) -> None:
        """All rows are done, or abandoned."""
        for member in self._members:
            member.count_time(self._clock())
            member.since = None
            member.open_lots.clear()

    def stats(self) -> Stats:
        """Sums over all replicas; the KV peak is the highest of one of them."""
        found = Stats(lost_processes=self._lost)
        for member in self._members:
            found = found.plus(member.past).plus(member.stats)
        return found

    def tallies(self) -> tuple[ReplicaTally, ...]:
        """What each has done so far."""
        now = self._clock()
        return tuple(member.tally(number, now) for number, member in enumerate(self._members))

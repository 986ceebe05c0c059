"""A replica: the model in a process of its own, which runs rows that come as bytes and says what it made of them.

Lots of rows follow each other in one loop (`engine/succession.py`): the next one joins when no row of those before it
waits to start, so that the batch stays full from the first lot to the last.
"""

from __future__ import annotations

import json
import platform
import queue
import resource
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from umbel.cluster.frames import Kind, decode_places, decode_rows, encode_answer
from umbel.cluster.heartbeats import BEAT_SECONDS
from umbel.cluster.nodes import digest_of
from umbel.config import EngineConfig
from umbel.engine.arithmetic import arithmetic_of
from umbel.engine.local import LocalEngine
from umbel.errors import UmbelError
from umbel.ir.plan import Plan
from umbel.ir.report import Stats
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload

Tell = Callable[[Kind, bytes, int], None]
ON_ITS_WAY = 0.2  # seconds in which the lot that was wanted comes, while nothing runs; then the loop ends


class Lots:
    """What a replica gets, from other threads: lots of rows to run, and rows of them that are not wanted."""

    def __init__(self) -> None:
        self.coming = queue.SimpleQueue[tuple[int, bytes]]()
        self.dropped = queue.SimpleQueue[tuple[int, bytes]]()

    def put(self, lot: int, rows: bytes) -> None:
        """Rows to run."""
        self.coming.put((lot, rows))

    def drop(self, lot: int, places: bytes) -> None:
        """Rows of a lot, by their places, that were answered elsewhere."""
        self.dropped.put((lot, places))


def serve(order: str, coming: Lots, tell: Tell) -> None:
    """Load the model and run the lots that come, without end; `tell` gets what is said of them, from two threads.

    `order` is what the executor asked for: "config" are the settings, "share" says how many replicas there are on this
    processor, "compared" whether it has to say what makes its answers comparable to those of others. An UmbelError,
    which another try would meet as well, is passed on and ends it.
    """
    asked = json.loads(order)
    engines: list[LocalEngine] = []  # the one, once it is loaded
    threading.Thread(target=_beat, args=(engines, tell), daemon=True).start()
    try:
        config = EngineConfig(**asked["config"])
        engine = LocalEngine(config, share=asked["share"])
        told: dict[str, Any] = {"machine": asdict(engine.machine), "dtype": engine.model.config.dtype}
        if asked["compared"]:
            told |= {"on": platform.node(), "made": made_of(config, engine.model.directory, engine.spec)}
        engines.append(engine)
        tell(Kind.READY, json.dumps(told).encode(), 0)
        while True:
            _run(engine, Wanted(engine, coming, tell), tell)
    except UmbelError as error:
        tell(Kind.FAILED, json.dumps({"error": type(error).__name__, "message": str(error)}).encode(), 0)


class Wanted:
    """The lots of one loop, as Arrivals: when none is there, one is asked for."""

    several = True

    def __init__(self, engine: LocalEngine, lots: Lots, tell: Tell):
        self.numbers: list[int] = []
        self.left: list[set[int]] = []  # rows of each lot that are not answered
        self._engine, self._lots, self._tell = engine, lots, tell
        self._asked = False

    def take(self, *, wait: bool) -> tuple[Workload, Plan] | None:
        """The next lot with its plan; without end the first one is waited for, and a moment any other."""
        if not self._asked and self._lots.coming.empty():
            self._tell(Kind.WANT, b"", 0)
            self._asked = True
        try:
            number, data = self._lots.coming.get(wait, ON_ITS_WAY if self.numbers else None)
        except queue.Empty:
            return None
        workload, self._asked = decode_rows(data), False
        self.numbers.append(number)
        self.left.append(set(range(len(workload))))
        return workload, self._engine.plan_for(workload)

    def through(self, i: int, row: int) -> None:
        """A row of the i-th lot is answered, or not wanted any more."""
        self.left[i].discard(row)
        if not self.left[i]:
            self._tell(Kind.DONE, totals(self._engine), self.numbers[i])

    def unwanted(self) -> Iterator[tuple[int, int]]:
        """Rows to take out of the loop, each with the place of its lot: those that were answered meanwhile are none."""
        while not self._lots.dropped.empty():
            number, data = self._lots.dropped.get()
            i = self.numbers.index(number) if number in self.numbers else -1
            for row in decode_places(data) if i >= 0 else ():
                if row in self.left[i]:
                    yield i, row
                    self.through(i, row)


def _run(engine: LocalEngine, lots: Wanted, tell: Tell) -> None:
    """Run lots in one loop, until none comes while nothing runs."""
    for i, output in engine.execute_all(lots, unwanted=lots.unwanted):
        tell(Kind.ANSWER, encode_answer(output), lots.numbers[i])
        lots.through(i, output.row)
    tell(Kind.STATS, totals(engine), 0)


def _beat(engines: list[LocalEngine], tell: Tell) -> None:
    """Say twice a second that it lives, with a mark of progress: steps while it runs, memory while it loads; and when
    rows have advanced the totals, even while none of them ends."""
    last = b""
    while True:
        steps = engines[0].stats().steps if engines else 0
        tell(Kind.BEAT, f"{steps} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}".encode(), 0)
        if engines and (now := totals(engines[0])) != last:
            last = now
            tell(Kind.STATS, now, 0)
        time.sleep(BEAT_SECONDS)


def totals(engine: LocalEngine) -> bytes:
    """The totals so far, and when the first token was there (seconds on the system's monotonic clock)."""
    stats: Stats = engine.stats()
    return json.dumps({"stats": asdict(stats), "first_token": engine.first_token}).encode()


def made_of(config: EngineConfig, directory: Path, spec: ModelSpec) -> dict[str, str]:
    """What the bits of answers depend on beside the rows: the model's files, this installation and this machine."""
    return {"model": digest_of(directory), "umbel": version("umbel"), **arithmetic_of(config, spec)}

"""Replicas as processes of this machine, reached over pipes: start, submit, results, stop."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from umbel.cluster.wire import Kind, frame, take_frames
from umbel.config import EngineConfig

PROGRAM = "umbel.cluster.replica"
READ = 1 << 20
PATIENCE = 10.0  # seconds in which a replica ends by itself once its pipe has


@dataclass(frozen=True, slots=True)
class Event:
    """Something from a replica: a frame, or (`kind` None) that it ended, with its exit code as text."""

    replica: int
    kind: Kind | None
    data: bytes


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    buffer: bytearray = field(default_factory=bytearray)


class LocalPool:
    """The processes; they end with this object, with `stop`, and when this process does in whatever way."""

    def __init__(self, configs: list[EngineConfig]):
        self._orders = [json.dumps({"config": asdict(config), "count": len(configs)}) for config in configs]
        self._children: dict[int, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._events: deque[Event] = deque()  # read, not yet taken
        self._end = weakref.finalize(self, _stop, self._children, 0.0)

    def start(self) -> list[int]:
        """Start those that do not run; returns their numbers."""
        missing = [number for number in range(len(self._orders)) if number not in self._children]
        for number in missing:
            command = [sys.executable, "-m", PROGRAM, self._orders[number]]
            # In a session of their own: Ctrl-C on a terminal is for the job, which then ends them.
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
            )
            self._children[number] = _Child(process)
            self._selector.register(_fd(process), selectors.EVENT_READ, number)
        return missing

    def submit(self, replica: int, data: bytes) -> None:
        """Send rows to a replica; where it is gone, `results` says so."""
        stream = self._children[replica].process.stdin
        rest = memoryview(frame(Kind.ROWS, data))
        with suppress(BrokenPipeError):
            while stream is not None and rest:
                rest = rest[stream.write(rest) :]

    def results(self) -> Iterator[Event]:
        """What comes from the replicas, as it does; waits for it. One that ended is not started again by this."""
        while True:
            while self._events:
                yield self._events.popleft()
            for key, _ in self._selector.select():
                self._events.extend(self._read(int(key.data)))

    @property
    def processes(self) -> dict[int, int]:
        """Ids of the processes that run, by replica."""
        return {number: child.process.pid for number, child in self._children.items()}

    def stop(self, patience: float = PATIENCE) -> None:
        """End all: of their own accord within `patience` seconds, by force after that."""
        for child in self._children.values():
            self._selector.unregister(_fd(child.process))
        self._events.clear()
        _stop(self._children, patience)

    def _read(self, number: int) -> Iterator[Event]:
        child = self._children[number]
        data = os.read(_fd(child.process), READ)
        if data:
            child.buffer += data
            for kind, found in take_frames(child.buffer):
                yield Event(number, kind, found)
            return
        self._selector.unregister(_fd(child.process))
        del self._children[number]
        _stop({number: child}, PATIENCE)
        yield Event(number, None, str(child.process.returncode).encode())


def _fd(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return process.stdout.fileno()


def _stop(children: dict[int, _Child], patience: float) -> None:
    for child in children.values():
        for stream in (child.process.stdin, child.process.stdout):
            if stream is not None:
                stream.close()
    for child in children.values():
        try:
            child.process.wait(patience)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
    children.clear()

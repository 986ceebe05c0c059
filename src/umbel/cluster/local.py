"""Replicas as processes of this machine, reached over pipes: start, submit, results, stop."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import torch

from umbel.cluster.executor import Event, ExecutorCan, order, untold_losses
from umbel.cluster.frames import Kind, frame, take_frames
from umbel.cluster.heartbeats import BEAT_SECONDS, Heartbeats
from umbel.cluster.nodes import FoundNode
from umbel.cluster.settings import config_of_replica
from umbel.config import EngineConfig

PROGRAM = "umbel.cluster.replica_process"
READ = 1 << 20
PATIENCE = 10.0  # seconds in which a replica ends by itself once its pipe has


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    lots: int = 0  # that it was sent and is not through with
    coming: bytearray = field(default_factory=bytearray)
    going: bytearray = field(default_factory=bytearray)


class LocalPool:
    """The processes; they end with this object, with `stop`, and when this process does in whatever way."""

    can = ExecutorCan()

    def __init__(self, config: EngineConfig, watch: Heartbeats | None = None):
        count, n_gpus = config.data_parallel_size, torch.cuda.device_count()
        each = [config_of_replica(config, i, n_gpus) for i in range(count)]
        self.settings = each[0]
        self._orders = [order(one, share=count) for one in each]
        self._children: dict[int, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._events: deque[Event] = deque()  # read, not yet taken
        self._watch = watch or Heartbeats()
        self._end = weakref.finalize(self, _stop, self._children, 0.0)

    def nodes(self) -> tuple[FoundNode, ...]:
        """None: all replicas are on this machine."""
        return ()

    def start(self) -> list[int]:
        """Start those that do not run; returns their numbers."""
        there = self._children.keys() | untold_losses(self._events)
        missing = [number for number in range(len(self._orders)) if number not in there]
        for number in missing:
            command = [sys.executable, "-m", PROGRAM, self._orders[number]]
            # In a session of their own: Ctrl-C on a terminal is for the job, which then ends them.
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
            )
            self._children[number] = _Child(process)
            self._watch.begin(number)
            os.set_blocking(_fd(process.stdin), False)  # one that does not read must not hold up the others
            self._selector.register(_fd(process.stdout), selectors.EVENT_READ, number)
        return missing

    def submit(self, replica: int, lot: int, data: bytes) -> None:
        """Send rows to a replica; where it is gone, `results` says so."""
        child = self._children.get(replica)
        if child is None:
            return
        child.lots += 1
        child.going += frame(Kind.ROWS, data, lot)
        self._watch.work(replica, busy=True)
        self._send(replica)

    def drop(self, replica: int, lot: int, data: bytes) -> None:
        """Say that some rows of a lot are not wanted any more."""
        if (child := self._children.get(replica)) is not None:
            child.going += frame(Kind.DROP, data, lot)
            self._send(replica)

    def results(self) -> Iterator[Event]:
        """What comes from the replicas, as it does; waits for it. One that is lost is not started again by this."""
        while True:
            while self._events:
                yield self._events.popleft()
            for key, mask in self._selector.select(BEAT_SECONDS):
                if mask & selectors.EVENT_WRITE:
                    self._send(int(key.data))
                else:
                    self._events.extend(self._read(int(key.data)))
            for number, why in self._watch.lost().items():
                self._events.append(self._lose(number, f"{why} and was ended", hung=True))

    @property
    def processes(self) -> dict[int, int]:
        """Ids of the processes that run, by replica."""
        return {number: child.process.pid for number, child in self._children.items()}

    def close(self) -> None:
        """End all."""
        self.stop()

    def stop(self, patience: float = PATIENCE) -> None:
        """End all: of their own accord within `patience` seconds, by force after that."""
        for number in self._children:
            self._unregister(number)
        self._events.clear()
        _stop(self._children, patience)

    def _send(self, number: int) -> None:
        """Write what a replica takes now; the rest when it can take more."""
        child = self._children[number]
        pipe = _fd(child.process.stdin)
        try:
            while child.going:
                del child.going[: os.write(pipe, child.going)]
        except BlockingIOError:
            if pipe not in self._selector.get_map():
                self._selector.register(pipe, selectors.EVENT_WRITE, number)
            return
        except BrokenPipeError:
            child.going.clear()
        if pipe in self._selector.get_map():
            self._selector.unregister(pipe)

    def _read(self, number: int) -> Iterator[Event]:
        child = self._children.get(number)
        if child is None:  # it was lost a moment ago
            return
        data = os.read(_fd(child.process.stdout), READ)
        if not data:
            yield self._lose(number, None)
            return
        child.coming += data
        for found in take_frames(child.coming):
            self._watch.hear(number, found.data if found.kind is Kind.BEAT else None)
            if found.kind in (Kind.READY, Kind.DONE):
                child.lots -= found.kind is Kind.DONE
                self._watch.work(number, busy=child.lots > 0)
            if found.kind is not Kind.BEAT:
                yield Event(number, found.kind, found.data, found.lot)

    def _lose(self, number: int, why: str | None, *, hung: bool = False) -> Event:
        """Take a replica out that ended (`why` None: its exit code says how), or end it."""
        self._unregister(number)
        child = self._children.pop(number)
        _stop({number: child}, 0.0 if hung else PATIENCE)
        return Event(number, None, (why or _ended(child.process.returncode)).encode(), hung=hung)

    def _unregister(self, number: int) -> None:
        self._watch.forget(number)
        process = self._children[number].process
        for stream in (process.stdin, process.stdout):
            if _fd(stream) in self._selector.get_map():
                self._selector.unregister(_fd(stream))


def _fd(stream: IO[bytes] | None) -> int:
    assert stream is not None  # all were asked for
    return stream.fileno()


def _ended(code: int) -> str:
    """How a process ended, in words."""
    return f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}"


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

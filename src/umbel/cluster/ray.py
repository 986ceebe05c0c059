"""Replicas as actors of a Ray cluster, on as many machines as it has: start, submit, results, stop.

An actor computes and nothing else: which rows it gets, which of its answers count and what is kept is decided here, in
the driver. Ray must not try again by itself (`max_restarts=0`, `max_task_retries=0`): a stream of answers that it
repeats goes on at the same index of another order, which loses some and doubles others. A lost actor is reported, and
its rows are dealt again.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from umbel.cluster.executor import Event, ExecutorCan, order, untold_losses
from umbel.cluster.frames import Frame, Kind, frame, take_frames
from umbel.cluster.heartbeats import BEAT_SECONDS, Heartbeats
from umbel.cluster.nodes import FoundNode
from umbel.cluster.ray_nodes import QUIET, address_of, ask_nodes, join
from umbel.cluster.replica import Lots, serve
from umbel.config import EngineConfig
from umbel.cost.devices import threads_of_each

_LOG = logging.getLogger(__name__)
PACK_SECONDS = 0.1  # for which an actor gathers answers before it sends them
PACKED = (Kind.ANSWER, Kind.STATS, Kind.BEAT)  # what can wait so long; for the others a replica may be idle
SPARE = 1  # CPUs of a machine that replicas leave to others: work of Ray that finds none waits without end
PART = 0.9  # of the only CPU of a machine
PATIENCE = 30.0  # seconds without any replica after which it is said what they wait for


Said = queue.SimpleQueue["tuple[Kind, bytes] | BaseException | bool"]


class Actor:
    """A replica in a process of Ray: `answers` is called once and streams until it ends, `put` beside it."""

    def __init__(self, order: str):
        self._order = order
        self._coming = Lots()

    def put(self, lot: int, rows: bytes) -> None:
        """Take in rows."""
        self._coming.put(lot, rows)

    def drop(self, lot: int, places: bytes) -> None:
        """Rows are not wanted any more."""
        self._coming.drop(lot, places)

    def answers(self) -> Iterator[bytes]:
        """All that the replica says, as frames; answers of a tenth of a second together, what is waited for at once."""
        said: Said = queue.SimpleQueue()
        threading.Thread(target=self._serve, args=(said,), daemon=True).start()
        while True:
            frames, ended = _gather(said)
            yield frames
            if isinstance(ended, BaseException):
                raise ended
            if ended:
                return

    def _serve(self, said: Said) -> None:
        try:
            serve(self._order, self._coming, lambda kind, data, lot: said.put((kind, frame(kind, data, lot))))
            said.put(True)
        except BaseException as error:  # ends the stream, and with it the actor
            said.put(error)


def _gather(said: Said) -> tuple[bytes, BaseException | bool]:
    """Frames that have been said, in one piece, and how it ended where it did."""
    frames: list[bytes] = []
    until = 0.0
    while True:
        try:
            one = said.get(timeout=max(until - time.monotonic(), 0.0) if frames else None)
        except queue.Empty:
            return b"".join(frames), False
        if not isinstance(one, tuple):
            return b"".join(frames), one
        if not frames:
            until = time.monotonic() + PACK_SECONDS
        frames.append(one[1])
        if one[0] not in PACKED:
            until = 0.0  # with what is there already


@dataclass(slots=True)
class _Held:
    """An actor and the stream of what it says."""

    actor: Any
    said: Any
    lots: int = 0  # that it was sent and is not through with
    here: bool = False  # it has said something: it is not waiting for a place any more


class RayPool:
    """The actors; they end with this object, with `stop`, and when this process does in whatever way."""

    can = ExecutorCan(machines=True, elastic=True)

    def __init__(self, config: EngineConfig, watch: Heartbeats | None = None):
        self._alone = address_of(config) is None and not ray.is_initialized()
        self._give_back = connect(config)
        self.settings, self._needs = needs(config)
        self._order, self._count = order(self.settings, compared=True), config.data_parallel_size
        options = {"max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD", "max_concurrency": 2}
        self._kind = ray.remote(Actor).options(**self._needs, **options)
        self._held: dict[int, _Held] = {}
        self._events: deque[Event] = deque()  # received, not yet taken
        self._watch = watch or Heartbeats()
        self._since = time.monotonic()
        self._end = weakref.finalize(self, _end, self._held)

    @property
    def processes(self) -> dict[int, str]:
        """Ids of the actors that run or wait for a place, by replica."""
        return {number: held.actor._actor_id.hex() for number, held in self._held.items()}

    def nodes(self) -> tuple[FoundNode, ...]:
        """The machines that can take a replica now, as each says of itself; none of a cluster of this one alone."""
        return () if self._alone else ask_nodes(self.settings.model, self._needs)

    def start(self) -> list[int]:
        """Start those that do not run; returns their numbers. Those for which there is no room wait until there is."""
        there = self._held.keys() | untold_losses(self._events)
        missing = [number for number in range(self._count) if number not in there]
        for number in missing:
            actor = self._kind.remote(self._order)
            self._held[number] = _Held(actor, actor.answers.options(num_returns="streaming").remote())
        return missing

    def submit(self, replica: int, lot: int, data: bytes) -> None:
        """Send the rows of a lot to a replica; where it is gone, `results` says so."""
        held = self._held.get(replica)
        if held is None:
            return
        held.lots += 1
        held.actor.put.remote(lot, data)
        self._watch.work(replica, busy=True)

    def drop(self, replica: int, lot: int, data: bytes) -> None:
        """Say that some rows of a lot are not wanted any more."""
        if (held := self._held.get(replica)) is not None:
            held.actor.drop.remote(lot, data)

    def results(self) -> Iterator[Event]:
        """What comes from the replicas, as it does; waits for it. One that is lost is not started again by this."""
        while True:
            while self._events:
                yield self._events.popleft()
            self._listen()
            for number, why in self._watch.lost().items():
                self._lose(number, f"{why} and was ended", hung=True)

    def stop(self, patience: float = 0.0) -> None:
        """End all at once: what an actor has not sent is lost, and its rows are not answered."""
        for number in list(self._held):
            self._forget(number)
        self._events.clear()

    def close(self) -> None:
        """End all, and the cluster if it was started for them."""
        self.stop()
        self._give_back()

    def _listen(self) -> None:
        """Take what has come, or comes within half a second."""
        of = {held.said: number for number, held in self._held.items()}
        if not of:
            time.sleep(BEAT_SECONDS)
        elif ray.wait(list(of), num_returns=1, timeout=BEAT_SECONDS)[0]:
            for said in ray.wait(list(of), num_returns=len(of), timeout=0)[0]:
                self._take(of[said], said)
        self._say_what_is_missing(time.monotonic())

    def _take(self, number: int, said: Any) -> None:
        """Take what an actor has said, or that it is lost."""
        try:
            data = ray.get(next(said))
        except StopIteration:
            self._lose(number, "ended")
        except RayTaskError as error:
            self._lose(number, f"failed: {error.cause!r}")
        except RayError as error:
            self._lose(number, f"was lost ({type(error).__name__})")
        else:
            for found in take_frames(bytearray(data)):
                self._tell(number, found)

    def _tell(self, number: int, found: Frame) -> None:
        held = self._held[number]
        if not held.here:
            held.here = True
            self._watch.begin(number)
        self._watch.hear(number, found.data if found.kind is Kind.BEAT else None)
        if found.kind in (Kind.READY, Kind.DONE):
            held.lots -= found.kind is Kind.DONE
            self._watch.work(number, busy=held.lots > 0)
        if found.kind is not Kind.BEAT:
            self._events.append(Event(number, found.kind, found.data, found.lot))

    def _lose(self, number: int, why: str, *, hung: bool = False) -> None:
        self._forget(number)
        self._events.append(Event(number, None, why.encode(), hung=hung))

    def _forget(self, number: int) -> None:
        """Take a replica out, and end it."""
        held = self._held.pop(number)
        if held.here:
            self._watch.forget(number)
        _kill(held)

    def _say_what_is_missing(self, now: float) -> None:
        """Log what replicas wait for, when none of them has a place for a while."""
        if any(held.here for held in self._held.values()):
            self._since = now
        elif now - self._since > PATIENCE:
            self._since = now
            has = ray.available_resources()
            free = ", ".join(f"{has.get(name, 0.0):g} {name}" for name in ("CPU", "GPU"))
            _LOG.warning("umbel: no replica has a place yet: each needs %s; free in the cluster: %s", self._needs, free)


def _kill(held: _Held) -> None:
    with contextlib.suppress(RayError, ValueError):
        ray.kill(held.actor, no_restart=True)


def _end(all_held: dict[int, _Held]) -> None:
    if ray.is_initialized():
        for held in all_held.values():
            _kill(held)
    all_held.clear()


def connect(config: EngineConfig) -> Callable[[], None]:
    """Join the cluster at `config.ray_address`, at RAY_ADDRESS, or one of this machine alone that is started for it;
    returns what gives it back. Raises UsageError where there is none, or one of another version."""
    if ray.is_initialized():
        return lambda: None
    drains = signal.getsignal(signal.SIGTERM)
    if (address := address_of(config)) is not None:
        join(address)
    else:
        threads = threads_of_each(config.threads, config.data_parallel_size)
        ray.init("local", num_cpus=threads * config.data_parallel_size + SPARE, include_dashboard=False, **QUIET)
    if signal.getsignal(signal.SIGTERM) is not drains:  # Ray's own ends the process at once, where a job drains
        signal.signal(signal.SIGTERM, drains)
    return ray.shutdown


def needs(config: EngineConfig) -> tuple[EngineConfig, dict[str, float]]:
    """The settings of each replica, and what Ray is asked for: GPUs where the cluster has some, else CPUs."""
    alone = replace(config, data_parallel_size=1, executor="local", ray_address=None, mixed_replicas=False)
    if config.device == "cuda" or (config.device == "auto" and ray.cluster_resources().get("GPU")):
        return alone, {"num_gpus": config.tensor_parallel_size, "num_cpus": 1}
    threads = config.threads or _threads(config.data_parallel_size)
    return replace(alone, device="cpu", threads=threads), {"num_cpus": threads if threads > 1 else PART}


def _threads(count: int) -> int:
    """Threads of each of `count` replicas: an equal part of the cluster, on one machine."""
    sizes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    free = [max(size - SPARE, 1) for size in sizes if size]
    if not free:
        return 1  # machines that come will have as many at least
    a_machine = -(-count // len(free))  # replicas on one
    return max(max(free) // a_machine, 1)

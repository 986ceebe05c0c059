"""What runs replicas: the seam between an LLM of several replicas and the processes or actors that hold them.

An executor gets rows as bytes (`frames.encode_rows`) and gives what comes back as events. It starts replicas, notices
whether they live, and ends them; which rows go where is `Deal`'s, which answers count is `Replicas`'.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from umbel.cluster.frames import Kind
from umbel.cluster.nodes import FoundNode
from umbel.config import EngineConfig


@dataclass(frozen=True, slots=True)
class ExecutorCan:
    """What an executor can do.

    `machines`: its replicas may be on several, which have to be compared. `elastic`: some of them may come later than
    the first, or never, and work begins without them.
    """

    machines: bool = False
    elastic: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """Something from a replica: a frame, of the rows of a `lot` or of none (0), or (`kind` None) that it is lost, with
    how in `data`: it ended, or was ended because it `hung`."""

    replica: int
    kind: Kind | None
    data: bytes
    lot: int = 0
    hung: bool = False


class Executor(Protocol):
    """`config.data_parallel_size` replicas, by number; it is made of these settings."""

    can: ExecutorCan
    settings: EngineConfig  # of one replica, which plans are made for

    @property
    def processes(self) -> Mapping[int, object]:
        """What runs, or is about to, by replica."""

    def nodes(self) -> Sequence[FoundNode]:
        """The machines that replicas may run on, where they are others than this one: each as it says of itself, before
        a model is loaded."""

    def start(self) -> list[int]:
        """Start those that do not run, but for those of which `results` has yet to say that they are lost; returns
        their numbers. Each says READY, or FAILED, or is lost."""

    def submit(self, replica: int, lot: int, data: bytes) -> None:
        """Send the rows of a lot to a replica; where it is gone, `results` says so."""

    def drop(self, replica: int, lot: int, data: bytes) -> None:
        """Say that some rows of a lot (`frames.encode_places`) are not wanted any more, as others answered them."""

    def results(self) -> Iterator[Event]:
        """What comes from the replicas, as it does; waits for it. One that is lost is not started again by this."""

    def stop(self, patience: float) -> None:
        """End all: of their own accord within `patience` seconds, by force after that."""

    def close(self) -> None:
        """End all, and what was started for them; nothing is started any more."""


def untold_losses(events: Iterable[Event]) -> set[int]:
    """Replicas that are lost by events that were not taken yet: started before that, they would be taken for the lost
    ones."""
    return {event.replica for event in events if event.kind is None}


def order(config: EngineConfig, *, share: int = 1, compared: bool = False) -> str:
    """What a replica gets when it starts (`replica.serve`)."""
    return json.dumps({"config": asdict(config), "share": share, "compared": compared})

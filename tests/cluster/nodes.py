"""A Ray cluster of several nodes on this machine, to which anything can happen: actors killed, stopped or poisoned,
nodes lost and added."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.held import wait_until
from umbel.cluster.frames import decode_rows

ray = pytest.importorskip("ray", reason="Ray is not installed here")

from umbel.cluster.ray import Actor  # noqa: E402 - which imports Ray

POISON = 299  # a token that ends the actor which gets a row with it


class ActorWithPoison(Actor):
    """Is killed by rows with a certain token, and else what its base is."""

    def put(self, lot: int, rows: bytes) -> None:
        """Take in rows, or die of them."""
        workload = decode_rows(rows)
        if any(POISON in workload.prompt(row) for row in range(len(workload))):
            os.kill(os.getpid(), signal.SIGKILL)
        super().put(lot, rows)


class Nodes:
    """A head that computes nothing, and nodes of one processor each."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.address: str = self._cluster.address
        for _ in range(count):
            self.join()

    @property
    def count(self) -> int:
        """How many nodes there are beside the head."""
        return len(self._cluster.worker_nodes)

    def join(self, cpus: int = 1) -> None:
        """Add a node."""
        self._cluster.add_node(num_cpus=cpus)

    def lose(self, chance: random.Random) -> None:
        """Lose a node, which says nothing before it is gone."""
        node = chance.choice(sorted(self._cluster.worker_nodes, key=lambda node: str(node.unique_id)))
        self._cluster.remove_node(node, allow_graceful=False)

    def actors(self) -> list[int]:
        """The processes of replicas on these nodes."""
        found, raylets = [], {self._raylet(node) for node in self._cluster.worker_nodes}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                parent = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
                if parent in raylets and path.read_bytes().startswith(b"ray::Actor"):
                    found.append(int(path.parent.name))
            except OSError:  # it has just ended
                continue
        return sorted(found)

    def kill(self, chance: random.Random) -> None:
        """Kill an actor."""
        wait_until(lambda: len(self.actors()) > 0)
        os.kill(chance.choice(self.actors()), signal.SIGKILL)

    def close(self) -> None:
        """End all."""
        self._cluster.shutdown()

    @staticmethod
    def _raylet(node: Any) -> int:
        return int(node.all_processes["raylet"][0].process.pid)


@contextmanager
def nodes(count: int) -> Iterator[Nodes]:
    """A cluster that this process is connected to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        made = Nodes(count)
        try:
            ray.init(address=made.address, log_to_driver=False, logging_level="error")
            yield made
        finally:
            ray.shutdown()
            made.close()

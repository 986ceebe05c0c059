"""The machines that replicas may run on, and what one of them lacks for a model: asked before anything is loaded."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from umbel.cluster.gpu_memory import free_gpu_memory
from umbel.cost.machine import available_memory
from umbel.errors import UmbelError, UsageError
from umbel.models.digest import hash_model
from umbel.models.families import resolve_model

SAME = ("model", "dtype")  # what replicas share even where they may be mixed: others are other answers, not other bits
SHIPPED = ("demo", "draft")
SHOWN = 4  # machines at fault that an error lists


@dataclass(frozen=True, slots=True)
class FoundNode:
    """A machine as it says of itself.

    `processors`, `gpus`: those that replicas may take; `memory_bytes` are free on it, `gpu_bytes` on each of its GPUs
    (none where nothing says so).
    `model`: the digest of the model's files there; "" where it has not got them.
    `umbel`: the version there.
    `fault`: why it could not be asked; "" where it could.
    """

    name: str
    processors: int
    gpus: int
    memory_bytes: int = 0
    model: str = ""
    umbel: str = ""
    fault: str = ""
    gpu_bytes: tuple[int, ...] = ()


def node_here(model: str, processors: int, gpus: int) -> FoundNode:
    """This machine, of which replicas may take so much; a model of the hub is not looked for."""
    try:
        digest = digest_of(resolve_model(model)) if is_file(model) else ""
    except UmbelError:
        digest = ""
    room = free_gpu_memory() if gpus else ()
    return FoundNode(platform.node(), processors, gpus, available_memory(), digest, version("umbel"), gpu_bytes=room)


def is_file(model: str) -> bool:
    """Whether a model lies on this machine under its name; others are fetched from the hub, by each machine."""
    return model in SHIPPED or Path(model).expanduser().exists()


def local_node(gpus: int = 0) -> FoundNode:
    """This machine with all that it has, without a look at any model."""
    return FoundNode(platform.node(), os.cpu_count() or 1, gpus, available_memory(), umbel=version("umbel"))


def digest_of(directory: Path) -> str:
    """One digest of all files of a model that can change an answer."""
    return sha256(str(sorted(hash_model(directory).items())).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Needs:
    """What `replicas` of a model need: its name, the digest of its files where the job began ("": each machine fetches
    them), and the bytes of its weights: in a machine's memory, or in that of each of a replica's `n_gpus`. `mixed`:
    installations may differ."""

    replicas: int
    name: str
    model: str
    weight_bytes: int
    mixed: bool = False
    n_gpus: int = 0

    @property
    def size(self) -> str:
        """The bytes of its weights and where they are, in words."""
        places = {0: "", 1: " on a GPU"}
        return _gib(self.weight_bytes) + places.get(self.n_gpus, f" on each of {self.n_gpus} GPUs")


def check_nodes(nodes: Sequence[FoundNode], needs: Needs) -> None:
    """Raise UsageError where a machine cannot take a replica, with what to do about it; no machine is no fault, as some
    may come later."""
    faults = [f"{node.name} {fault}" for node in nodes for fault in _faults(node, needs)]
    if faults:
        more = f"; and {len(faults) - SHOWN:,} more" if len(faults) > SHOWN else ""
        raise UsageError(f"replicas of {needs.name!r} cannot run on every machine: {'; '.join(faults[:SHOWN])}{more}")
    rooms = [_room(node, needs) for node in nodes]
    if rooms and None not in rooms and (room := sum(n for n in rooms if n is not None)) < needs.replicas:
        raise UsageError(
            f"data_parallel_size={needs.replicas}: the weights of each take {needs.size}, and the free "
            f"memory of {len(nodes):,} machines takes {room:,} of them: lower it to that, or add machines"
        )


def _room(node: FoundNode, needs: Needs) -> int | None:
    """How many replicas the free memory of a machine takes; None where it is not known."""
    if not needs.n_gpus:
        return node.memory_bytes // max(needs.weight_bytes, 1)
    return sum(free >= needs.weight_bytes for free in node.gpu_bytes) // needs.n_gpus if node.gpu_bytes else None


def _faults(node: FoundNode, needs: Needs) -> Iterator[str]:
    """What a machine lacks, in words."""
    if node.fault:
        yield node.fault
        return
    if needs.model and not node.model:
        yield "has no such model: copy it there, to the same path, or take the machine out of the cluster"
    elif needs.model and node.model != needs.model:
        yield f"has another model of that name ({node.model} instead of {needs.model}): copy this one there"
    if node.umbel != version("umbel") and not needs.mixed:
        yield (
            f"has Umbel {node.umbel} instead of {version('umbel')}: install this one there, or allow other bits with "
            "--mixed-replicas --allow-lossy"
        )
    if _room(node, needs) == 0:
        free = f"{_gib(node.memory_bytes)} of memory free"
        if needs.n_gpus:
            free = f"GPUs with {', '.join(map(_gib, node.gpu_bytes))} free"
        yield (
            f"has {free}, and the weights take {needs.size}: take a smaller dtype or model, or the "
            "machine out of the cluster"
        )


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.3g} GiB"


def differences(made: Mapping[str, str], first: Mapping[str, str]) -> dict[str, str]:
    """By name, in which ways what a replica's answers depend on differs from that of the first, in words."""
    return {name: f"{name} {made[name]} instead of {value}" for name, value in first.items() if made[name] != value}

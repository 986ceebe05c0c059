"""Asks the machines of a Ray cluster what they are and have; and says in plain words why a cluster cannot be joined."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from umbel.cluster.nodes import FoundNode, node_here
from umbel.config import EngineConfig
from umbel.errors import UsageError

ANSWER_SECONDS = 120.0  # for all machines together: one that starts its first process of Ray takes some
CONNECT_SECONDS = 5.0
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}


def address_of(config: EngineConfig) -> str | None:
    """The address of the cluster that was asked for; None where none was."""
    return config.ray_address or os.environ.get("RAY_ADDRESS") or None


def join(address: str) -> None:
    """Join the cluster at an address. Raises UsageError where there is none, or one of another version."""
    _check_listening(address)
    try:
        ray.init(address=address, **QUIET)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(_why_not(address, str(error))) from None


def _check_listening(address: str) -> None:
    """Raise UsageError where nothing listens: Ray itself tries for a minute and then ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise UsageError(_why_not(address, f"nothing listens there ({error.strerror or error})")) from None


def _why_not(address: str, error: str) -> str:
    """Why a cluster cannot be joined and what to do, from what Ray said."""
    told = [line.strip() for line in error.splitlines() if line.strip()]
    if "Version mismatch" in error:
        cluster, here = (", ".join(part) for part in _versions(told))
        return (
            f"ray_address={address!r}: that cluster has {cluster}, and this machine {here}: install the same versions "
            "of Ray and Python on all machines"
        )
    return (
        f"ray_address={address!r}: no Ray cluster to work on: {told[0] if told else 'no answer'}; start one with `ray "
        "start --head`, of the same versions of Ray and Python, or leave the address out"
    )


def _versions(told: list[str]) -> tuple[list[str], list[str]]:
    """The lines "Ray: 2.60.0" and "Python: 3.11.2" of a cluster, and those of this process, from Ray's message."""
    found = [line.replace(": ", " ") for line in told if line.startswith(("Ray: ", "Python: "))]
    return found[: len(found) // 2], found[len(found) // 2 :]


def find_nodes(address: str, config: EngineConfig) -> tuple[FoundNode, ...]:
    """The machines of the cluster at an address that may take a replica; it is left again. Raises UsageError."""
    joined = ray.is_initialized()
    if not joined:
        join(address)
    try:
        return ask_nodes(config.model, {"num_cpus": 1.0, "num_gpus": float(config.device == "cuda")})
    finally:
        if not joined:
            ray.shutdown()


def ask_nodes(model: str, needs: dict[str, float]) -> tuple[FoundNode, ...]:
    """The machines that can take a replica, which needs `num_cpus` and maybe `num_gpus`, each as it says of itself."""
    asked = dict(_asked(model, needs))
    ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS) if asked else None
    found = (_answer(task, node) for task, node in asked.items())
    return tuple(sorted((node for node in found if node is not None), key=lambda node: node.name))


def _asked(model: str, needs: dict[str, float]) -> Iterator[tuple[Any, FoundNode]]:
    """A question for each machine, and what Ray knows of it; it takes no processor there, as they may all be taken."""
    ask = ray.remote(node_here)
    for node in ray.nodes():
        has = node["Resources"]
        cpus, gpus = (int(has.get(name, 0)) for name in ("CPU", "GPU"))
        if not node["Alive"] or cpus < needs["num_cpus"] or gpus < needs.get("num_gpus", 0):
            continue
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        yield (
            ask.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(model, cpus, gpus),
            FoundNode(name, cpus, gpus),
        )


def _answer(task: Any, node: FoundNode) -> FoundNode | None:
    """What a machine said; None for one that is lost meanwhile, or too busy to say anything."""
    try:
        told: FoundNode = ray.get(task, timeout=0)
    except RayTaskError as error:
        last = str(error).strip().splitlines()[-1]
        fault = f"cannot run Umbel ({last}): install umbel[ray]=={version('umbel')} there"
        return FoundNode(node.name, node.processors, node.gpus, fault=fault)
    except (GetTimeoutError, RayError) as error:
        logging.getLogger(__name__).warning("umbel: %s was not asked: %s", node.name, type(error).__name__)
        return None
    return replace(told, name=node.name)

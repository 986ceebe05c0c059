"""What `umbel plan` shows of several replicas beside their shares: the machines, and what other numbers would take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from umbel.config import EngineConfig
from umbel.errors import CapacityError, UsageError

if TYPE_CHECKING:
    from umbel.cluster.nodes import FoundNode
    from umbel.ir.plan import Plan

Found = tuple[tuple["FoundNode", ...], str]


def find_nodes(config: EngineConfig, machine: str) -> Found:
    """The machines that replicas would run on, and "" or why these could not be asked. A cluster is asked where it can
    be reached; none is started for it, and no model is loaded."""
    from umbel.cluster.nodes import local_node

    if config.executor == "local":
        if machine != "this":
            return (), f"the plan is for {machine}, not for this machine"
        return (local_node(_gpus_here()),), ""
    try:
        from umbel.cluster.ray_nodes import address_of, find_nodes
    except ModuleNotFoundError as error:
        return (), f"the package {error.name!r} is not installed here: pip install 'umbel[{config.executor}]'"
    if (address := address_of(config)) is None:
        return (local_node(_gpus_here()),), ""
    try:
        return find_nodes(address, config), ""
    except UsageError as error:
        return (), str(error)


def _gpus_here() -> int:
    from umbel.batch.devices import has_driver

    if not has_driver():
        return 0
    import torch

    return torch.cuda.device_count()


def put_replicas(record: dict[str, Any], found: Found, plan_for: Callable[[int], Plan]) -> None:
    """Put the machines, and the price of one replica fewer and one more, into the record of a plan of several replicas.

    `plan_for` plans the same rows for another number of them.
    """
    from umbel.plan.explain.replicas import put_nodes, put_prices

    count, start = record["replicas"]["count"], sum(part["expected"] for part in record["startup"].values())
    seconds: dict[int, float | None] = {count: record["total_seconds"]["expected"]}
    for other in (count - 1, count + 1):
        if other >= 1:
            seconds[other] = _seconds(plan_for, other, start)
    put_nodes(record, [asdict(node) for node in found[0]], found[1])
    put_prices(record, seconds)


def _seconds(plan_for: Callable[[int], Plan], count: int, start: float) -> float | None:
    """Seconds from start to end of so many replicas; None where a row does not fit one of them."""
    try:
        return start + plan_for(count).estimates.seconds[1]
    except CapacityError:
        return None

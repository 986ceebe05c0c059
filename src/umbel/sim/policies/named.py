"""All policies by name: what `umbel sim` runs by default, and ours with parts switched off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from umbel.errors import UsageError, nearest
from umbel.sim.case import SimCase
from umbel.sim.policies import batchllm, blendserve, daft, llm_d, orders, ours, sglang
from umbel.sim.policies.setup import Setup

POLICIES: Mapping[str, Callable[[SimCase], Setup]] = MappingProxyType(
    {
        "fcfs-lru": orders.arrival,
        "random-lru": orders.shuffled,
        "sorted-lru": orders.in_order,
        "llm-d-hash": llm_d.by_system_prompt,
        "daft-buckets": daft.buckets,
        "sglang-lpm": sglang.as_released,
        "longest-prefix": sglang.longest_prefix,
        "blendserve": blendserve.blended,
        "batchllm": batchllm.batchllm,
        "umbel": ours.umbel,
    }
)
ABLATIONS: Mapping[str, Callable[[SimCase], Setup]] = MappingProxyType(
    {
        "umbel-no-prefix": ours.no_prefix,
        "umbel-no-order": ours.no_order,
        "umbel-no-pack": ours.no_pack,
        "umbel-no-memory": ours.no_memory,
    }
)


def setup(case: SimCase, name: str) -> Setup:
    """The settings of a policy of `POLICIES` or `ABLATIONS`; raises UsageError for another name."""
    check_name(name)
    return {**POLICIES, **ABLATIONS}[name](case)


def check_name(name: str) -> None:
    """Raise UsageError unless there is a policy of that name."""
    known = [*POLICIES, *ABLATIONS]
    if name not in known:
        raise UsageError(f"policy {name!r}: must be one of {', '.join(known)}{nearest(name, known)}")

"""How each engine would run a case, as settings of one scheduler: the rules of vLLM, SGLang, BatchLLM and ours.

The baselines have vLLM's limits of the time (0.6.4, as BatchLLM compares with): 256 running requests, 2,048 tokens a
step, admission by current use alone, every sequence reading its whole context, and an LRU block cache that keeps the
blocks of finished requests too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from umbel.errors import UsageError, nearest
from umbel.ir.forest import Forest
from umbel.ir.plan import Plan
from umbel.sched.policies.policy import Policy
from umbel.sim.case import SimCase

Ints = NDArray[np.int64]

CAP, CHUNK = 256, 2048


@dataclass(frozen=True, slots=True)
class Setup:
    """One policy on one case: its plan (the forest that it shares by, its rows in order) and its rules; `shared_reads`
    as in SimRunner."""

    plan: Plan
    policy: Policy
    shared_reads: bool


def setup(case: SimCase, name: str) -> Setup:
    """The settings of a policy of `POLICIES` or `ABLATIONS`; raises UsageError for another name."""
    check_name(name)
    return {**POLICIES, **ABLATIONS}[name](case)


def check_name(name: str) -> None:
    """Raise UsageError unless there is a policy of that name."""
    known = [*POLICIES, *ABLATIONS]
    if name not in known:
        raise UsageError(f"policy {name!r}: must be one of {', '.join(known)}{nearest(name, known)}")


def _fcfs(case: SimCase) -> Setup:
    return _cached(case, "fcfs-lru", np.arange(len(case.workload)))


def _sorted(case: SimCase) -> Setup:
    return _cached(case, "sorted-lru", case.sorted_rows)


def _longest_prefix(case: SimCase) -> Setup:
    made = _cached(case, "longest-prefix", np.arange(len(case.workload)))
    return replace(made, policy=replace(made.policy, queue="longest-prefix"))


def _cached(case: SimCase, name: str, order: Ints) -> Setup:
    policy = Policy(name=name, queue="plan", keep="lru", admission="aggressive", max_running=CAP)
    return Setup(_alone(case.plan, case.blocks, order), policy, False)


def _alone(plan: Plan, forest: Forest, order: Ints) -> Plan:
    """The plan with another forest and order, in which every row runs."""
    return replace(plan, forest=forest, order=order, chunk=CHUNK, same_as=np.arange(len(order)))


def _batchllm(case: SimCase) -> Setup:
    """One level of sharing by the published rule; groups by rising prefill, as their answers are assumed to be alike.

    A group's prefix is computed before its remainders and held until the last of them is done; nothing limits the
    number of running requests; attention reads a prefix once for its group.
    """
    forest = case.planned(prefix="paper").forest
    order = smallest_prefill_first(forest)
    policy = Policy(name="batchllm", admission="aggressive")
    return Setup(_alone(case.plan, forest, order), policy, True)


def smallest_prefill_first(forest: Forest) -> Ints:
    """The rows tree by tree, those with the fewest tokens first; ties, and rows of a tree, as in the forest."""
    roots = np.flatnonzero(forest.parent < 0)
    tree = np.searchsorted(roots, forest.leaf, side="right") - 1
    done = np.concatenate([[0], np.cumsum(forest.end - forest.start)])
    total = done[forest.subtree_end[roots]] - done[roots]
    return np.lexsort((forest.leaf, total[tree]))


def _umbel(case: SimCase) -> Setup:
    return _ours(case, case.plan)


def _ours(case: SimCase, plan: Plan) -> Setup:
    return Setup(plan, Policy(admission=plan.admission), True)


def _no_prefix(case: SimCase) -> Setup:
    return _ours(case, case.planned(prefix="none"))


def _no_order(case: SimCase) -> Setup:
    made = _umbel(case)
    return replace(made, plan=replace(made.plan, order=np.sort(made.plan.order)))


def _no_pack(case: SimCase) -> Setup:
    made = _umbel(case)
    return replace(made, plan=replace(made.plan, chunk=CHUNK), policy=replace(made.policy, max_running=CAP))


def _no_memory(case: SimCase) -> Setup:
    made = _umbel(case)
    return replace(made, policy=replace(made.policy, admission="aggressive"))


POLICIES: Mapping[str, Callable[[SimCase], Setup]] = MappingProxyType(
    {
        "fcfs-lru": _fcfs,
        "sorted-lru": _sorted,
        "longest-prefix": _longest_prefix,
        "batchllm": _batchllm,
        "umbel": _umbel,
    }
)
ABLATIONS: Mapping[str, Callable[[SimCase], Setup]] = MappingProxyType(
    {
        "umbel-no-prefix": _no_prefix,
        "umbel-no-order": _no_order,
        "umbel-no-pack": _no_pack,
        "umbel-no-memory": _no_memory,
    }
)

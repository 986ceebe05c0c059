"""What a policy comes to: a plan and the rules of one scheduler; and the engine that those with a prefix cache share.

That engine has vLLM's limits of the time (0.6.4, as BatchLLM compares with): 256 running requests, 2,048 tokens a step,
admission by current use alone, every sequence reading its whole context, and an LRU block cache that keeps the blocks
of finished requests too. So policies on it differ in the rows' order alone, or in how the next row is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

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


def cached(case: SimCase, name: str, order: Ints, queue: str = "plan") -> Setup:
    """The engine with a prefix cache, given the rows in this order; `queue` is how it takes the next one."""
    policy = Policy(name=name, queue=queue, keep="lru", admission="aggressive", max_running=CAP)
    return Setup(alone(case.plan, case.blocks, order), policy, False)


def alone(plan: Plan, forest: Forest, order: Ints) -> Plan:
    """The plan with another forest and order, in which every row runs."""
    return replace(plan, forest=forest, order=order, chunk=CHUNK, same_as=np.arange(len(order)))

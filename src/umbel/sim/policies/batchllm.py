"""BatchLLM (2412.03594): one level of groups by the published rule, the group with the least prefill first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest
from umbel.sched.policies.policy import Policy
from umbel.sim.case import SimCase
from umbel.sim.policies.setup import Setup, alone

Ints = NDArray[np.int64]


def batchllm(case: SimCase) -> Setup:
    """One level of sharing by the published rule; groups by rising prefill, as their answers are assumed to be alike.

    A group's prefix is computed before its remainders and held until the last of them is done; nothing limits the
    number of running requests; attention reads a prefix once for its group.
    """
    forest = case.planned(prefix="paper").forest
    order = smallest_prefill_first(forest)
    policy = Policy(name="batchllm", admission="aggressive")
    return Setup(alone(case.plan, forest, order), policy, True)


def smallest_prefill_first(forest: Forest) -> Ints:
    """The rows tree by tree, those with the fewest tokens first; ties, and rows of a tree, as in the forest."""
    roots = np.flatnonzero(forest.parent < 0)
    tree = np.searchsorted(roots, forest.leaf, side="right") - 1
    done = np.concatenate([[0], np.cumsum(forest.end - forest.start)])
    total = done[forest.subtree_end[roots]] - done[roots]
    return np.lexsort((forest.leaf, total[tree]))

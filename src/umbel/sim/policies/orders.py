"""vLLM's own rule, first come, first served, on rows as they come, in random order, and sorted beforehand."""

from __future__ import annotations

import numpy as np

from umbel.sim.case import SimCase
from umbel.sim.policies.setup import Setup, cached


def arrival(case: SimCase) -> Setup:
    """Rows as they come."""
    return cached(case, "fcfs-lru", np.arange(len(case.workload)))


def shuffled(case: SimCase) -> Setup:
    """Rows in random order, by the seed of the job: what is left of sharing when nothing is known of it."""
    return cached(case, "random-lru", np.random.default_rng(case.config.seed).permutation(len(case.workload)))


def in_order(case: SimCase) -> Setup:
    """Rows by their prompts in lexicographic order."""
    return cached(case, "sorted-lru", case.sorted_rows)

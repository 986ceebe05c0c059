"""SGLang's `lpm`: the waiting row next of whose prompt most is cached; as released, only while few rows wait.

That rule of several uncached rows with one beginning only one should start is not needed here: a run is never computed
twice at the same time. Rows are compared whenever one starts, there once a step. Both make it stronger here than there.
"""

from __future__ import annotations

import numpy as np

from umbel.sim.case import SimCase
from umbel.sim.policies.setup import Setup, cached


def longest_prefix(case: SimCase) -> Setup:
    """The rule, however many rows wait (as published: arXiv 2312.07104)."""
    return cached(case, "longest-prefix", np.arange(len(case.workload)), "longest-prefix")


def as_released(case: SimCase) -> Setup:
    """The rule while at most 128 rows wait, and the order of arrival while there are more (since late 2024)."""
    return cached(case, "sglang-lpm", np.arange(len(case.workload)), "longest-prefix-of-few")

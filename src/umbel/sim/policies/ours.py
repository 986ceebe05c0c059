"""Our own plan, and the same with a part of it switched off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from umbel.engine.assemble import policy_of
from umbel.ir.plan import Plan
from umbel.sim.case import SimCase
from umbel.sim.policies.setup import CAP, CHUNK, Setup


def umbel(case: SimCase) -> Setup:
    """The plan."""
    return _ours(case.plan)


def no_prefix(case: SimCase) -> Setup:
    """Nothing is shared."""
    return _ours(case.planned(prefix="none"))


def no_order(case: SimCase) -> Setup:
    """Rows as they come."""
    made = umbel(case)
    return replace(made, plan=replace(made.plan, order=np.sort(made.plan.order)))


def no_pack(case: SimCase) -> Setup:
    """The other engines' limits of a step."""
    made = umbel(case)
    return replace(made, plan=replace(made.plan, chunk=CHUNK), policy=replace(made.policy, max_running=CAP))


def no_memory(case: SimCase) -> Setup:
    """Rows start when their prompt fits now."""
    made = umbel(case)
    return replace(made, policy=replace(made.policy, admission="aggressive"))


def _ours(plan: Plan) -> Setup:
    return Setup(plan, policy_of(plan), True)

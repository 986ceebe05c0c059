"""Which rule fills the steps of a session, and at what pace."""

from __future__ import annotations

from umbel.config import EngineConfig
from umbel.cost.live import Prices
from umbel.ir.spec import ModelSpec
from umbel.plan.layering import why_not_layered
from umbel.sched.policies.layered import LayerPace
from umbel.sched.policies.stall_free import StepPace


def step_rule(
    spec: ModelSpec, config: EngineConfig, prices: Prices, tbt: float | None, *, owned: bool
) -> tuple[str, StepPace]:
    """The name of the rule, and its pace. Prompts may pass the layers of a mixture of experts in groups where there is
    a target between tokens; whether one does, the rule decides by `prices`. A runner that is not our own (`owned`)
    gets steps that pass all layers."""
    if tbt is None or not owned or why_not_layered(spec, config):
        return "stall-free", StepPace(prices, tbt)
    return "layered", LayerPace(prices, tbt, spec.n_layers)

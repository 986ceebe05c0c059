"""The flow that a technique asks for, opened for a loaded model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umbel import registry
from umbel.config import EngineConfig
from umbel.cost.passed import why_no_flow
from umbel.errors import UsageError
from umbel.ir.spec import ModelSpec
from umbel.linear.base import LinearMethod, Weights
from umbel.models.decoder import Decoder
from umbel.plan.walk.passing import passed_layers
from umbel.runner.flow.base import FlowParts, LayerFlow


def check_flow(techniques: Sequence[str], spec: ModelSpec, *, adapters: bool = False, keep: str = "auto") -> None:
    """Raise UsageError for a flow with a model that cannot bear it, with adapters, or with a rule of what to `keep` for
    other rows where answers lack keys."""
    price = passed_layers(techniques)
    for row, asked in registry.asked_of("flow", techniques) if price is not None else ():
        why = why_no_flow(spec, price)
        if not why and adapters:
            why = "adapters change products row by row, and are laid out once a step; leave lora out"
        if not why and keep != "auto" and not price.leaves_keys:
            why = f"keep={keep!r} keeps runs for rows to come, and answers have no keys in layers that they skip"
        if why:
            raise UsageError(f"technique={asked!r}: {why}; {row.name} is for {row.needs}")


def open_flow(
    config: EngineConfig, decoder: Decoder, weights: Weights, method: LinearMethod, directory: Path
) -> LayerFlow | None:
    """The flow that `--technique` names; None where all rows pass all layers. Raises UsageError for one that does not
    fit the checkpoint."""
    for row, asked in registry.asked_of("flow", config.technique):
        flow: LayerFlow = registry.load("flow", row.name, row.settings_of(asked), decoder.spec)
        flow.open(FlowParts(decoder, weights, method, directory))
        return flow
    return None

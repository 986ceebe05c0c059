"""Workloads of which a technique leaves parts of prompts out before they are planned to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from umbel import registry
from umbel.config import EngineConfig
from umbel.engine.build import Model
from umbel.engine.draft_look import DraftLook
from umbel.engine.draft_model import DraftModel
from umbel.engine.spec_prefill import SpecPrefill
from umbel.errors import UsageError
from umbel.ir.arrivals import Arrivals
from umbel.ir.plan import Plan
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload

Cut = Callable[[Workload, Plan | None], tuple[Workload, Plan]]


class CutArrivals:
    """Workloads as they come, each `cut` and planned again. Implements `Arrivals`."""

    def __init__(self, arrivals: Arrivals, cut: Cut):
        self.arrivals, self.cut = arrivals, cut

    @property
    def several(self) -> bool:
        """Whether more than one may come."""
        return self.arrivals.several

    def take(self, *, wait: bool) -> tuple[Workload, Plan] | None:
        """The next one."""
        found = self.arrivals.take(wait=wait)
        return None if found is None else self.cut(*found)


def open_cut(model: Model) -> SpecPrefill | None:
    """What leaves parts of prompts out, by the draft model that proposes tokens for a loaded one; None where nothing
    does."""
    for row, asked in registry.asked_of("prompt", model.config.technique):
        draft = cast(DraftModel, model.drafting[model.config.speculate.partition(":")[2]])
        look, context = DraftLook(draft.model), model.spec.max_positions
        cut: SpecPrefill = registry.load("prompt", row.name, row.settings_of(asked), look, context)
        return cut
    return None


def check_cut(config: EngineConfig, spec: ModelSpec) -> None:
    """Raise UsageError for a technique that leaves parts of prompts out, with a model or a setting that cannot bear
    it."""
    for row, asked in registry.asked_of("prompt", config.technique):
        windows = {shape.window for shape in spec.kv_shapes if shape.window is not None}
        why = ""
        if spec.recurrences:
            why = f"layers of {spec.family!r} keep a state, which takes on every token in turn"
        elif windows:
            why = f"layers of {spec.family!r} have windows of {max(windows)} positions, which would be of places then"
        elif not config.speculate.startswith("model:"):
            why = "a draft model chooses what is read; name it by speculate='model:PATH' (--speculate model:PATH)"
        elif config.keep != "auto":
            why = f"keep={config.keep!r} keeps prompts for rows to come, and these have gaps"
        if why:
            raise UsageError(f"technique={asked!r}: {why}; {row.name} is for {row.needs}")

"""Says how many layers the tokens of a job pass where a flow lets some out."""

from __future__ import annotations

from umbel.ir.plan import Decision
from umbel.plan.draft import PlanDraft
from umbel.plan.walk.passing import PlannedLayers


def count_layers(draft: PlanDraft) -> PlanDraft:
    """Decide "layers passed": tokens times layers, of those that there are."""
    layers = PlannedLayers.of(draft)
    if layers is None:
        return draft
    facts = {"passed": round(layers.passed), "whole": round(layers.whole), "products": layers.products}
    why = "tokens times layers, of {whole:,}; the products of layers that are left are {products:.0%} of all"
    return draft.decide(Decision("layers passed", round(layers.passed), why, facts=facts))

"""Tokens of a job times the layers that they pass where a flow lets some out, beside what all layers would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from umbel import registry
from umbel.cost.passed import PassedLayers, spared_flops
from umbel.cost.roofline import Load
from umbel.cost.windows import Windows
from umbel.plan.draft import PlanDraft
from umbel.technique import named


def passed_layers(techniques: Sequence[str]) -> PassedLayers | None:
    """The price of the flow among some techniques (EngineConfig.technique); None where there is none."""
    for row, asked in registry.asked_of("flow", techniques):
        price: PassedLayers = named(row.measure)(row.settings_of(asked))
        return price
    return None


@dataclass(frozen=True, slots=True)
class PlannedLayers:
    """Tokens times layers that are `passed`, of `whole`; the share of products and of pairs of a query and a key that
    are left."""

    passed: float
    whole: float
    products: float
    pairs: float

    @classmethod
    def of(cls, draft: PlanDraft) -> PlannedLayers | None:
        """What a draft's job passes; None where there is no flow."""
        price = passed_layers(draft.config.technique)
        if price is None:
            return None
        forest, n_layers = draft.forest, draft.spec.n_layers
        drawn = float(len(np.unique(forest.leaf[draft.order])))  # last tokens of prompts, which pass all layers
        inner = float(forest.n_tokens) - drawn
        end = forest.end[forest.leaf[draft.order]]
        later, samples = np.maximum(draft.lengths[draft.order] - 1, 0), draft.samples[draft.order]
        depth = np.append(0, np.cumsum(price.answer_layers(n_layers, np.arange(int(later.max(initial=0))))))
        answered = float((depth[later] * samples).sum())
        tokens = float((later * samples).sum())
        passed = inner * price.prompt_layers(n_layers) + drawn * n_layers + answered
        whole = (inner + drawn + tokens) * n_layers
        windows = Windows.of(draft.spec)
        own = float(windows.pairs(forest.start, forest.end).sum())
        asked = float((windows.pairs(end, end + later) * samples).sum())
        of_prompts, of_answers = price.prompt_layers(n_layers) / n_layers, answered / max(tokens * n_layers, 1.0)
        pairs = (own * of_prompts + asked * of_answers) / max(own + asked, 1.0)
        skipping = inner if price.leaves_keys else tokens
        spared = spared_flops(draft.spec, price, whole - passed, skipping)
        all_products = draft.price.shape.token_flops * whole / n_layers
        return cls(passed, whole, 1.0 - spared / max(all_products, 1.0), pairs)

    def lighten(self, load: Load, *, measured: bool) -> Load:
        """The load of steps with fewer products and pairs; where steps were measured they took as long as they did."""
        if measured:
            return load
        return replace(load, tokens=load.tokens * self.products, pairs=load.pairs * self.pairs)

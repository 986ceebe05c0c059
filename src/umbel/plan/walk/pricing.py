"""Prices a draft: a walk over the whole run on the clock, and the expected seconds of its steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from umbel import registry
from umbel.cost.roofline import Load
from umbel.cost.windows import Windows
from umbel.ir.distinct import Distinct
from umbel.plan.draft import PlanDraft
from umbel.plan.forest.documents import copied_tokens
from umbel.plan.passes.prefix import sum_above
from umbel.plan.walk.clock import Limits, Timeline, walk
from umbel.plan.walk.cutting import PlannedCut
from umbel.plan.walk.forgetting import forgetful
from umbel.plan.walk.passing import PlannedLayers
from umbel.plan.walk.reading import PlannedKeys
from umbel.plan.walk.samples import WalkSamples
from umbel.plan.walk.sharing import left_rows

SKETCH_SAMPLES = 400  # what is walked one by one for the ends of an interval
ROUGH_SAMPLES = 2_500  # what is walked one by one to compare alternatives, of which there are many


def run_draft(draft: PlanDraft, detail: int | None = None) -> tuple[Timeline, Load]:
    """The walk of a draft and the load of its steps; a pool that is not sized yet holds everything.

    Above `detail` samples (None: a very large number) neighbours are walked together. Samples that are proposed tokens
    to take fewer steps, of more tokens.
    """
    bargain = draft.bargain
    page, windows = draft.config.page_size, Windows.of(draft.spec)
    rows = WalkSamples.of(draft.forest, draft.order, draft.samples, _steps(draft), page, windows, draft.limits)
    forest = draft.forest
    if (measure := registry.measure("technique", draft.config.technique)) is not None:
        whole = np.repeat(left_rows(draft)[draft.order], draft.samples[draft.order])
        forest, rows = forgetful(forest, rows, measure, page, whole)
    everything = int(rows.pages.sum() + (-(-rows.lengths // page)).sum() + 1) * page
    limits = Limits(draft.chunk, draft.kv_tokens or everything, page, draft.admission, windows, detail)
    timeline = walk(forest, rows, limits)
    load, more = timeline.load, timeline.load.samples * bargain.drafted
    if draft.config.technique and (keys := PlannedKeys.of(draft)) is not None:
        load = keys.lighten(load, rows, measured=draft.price.calibration is not None)
    if draft.config.technique and (layers := PlannedLayers.of(draft)) is not None:
        load = layers.lighten(load, measured=draft.price.calibration is not None)
    if draft.config.technique and (cut := PlannedCut.of(draft)) is not None:
        load = cut.lighten(load)
    if copied := copied_tokens(draft.forest, draft.workload):
        computed = 1 - copied / max(float((load.steps * load.tokens).sum()), copied)
        load = replace(load, tokens=load.tokens * computed, pairs=load.pairs * computed)
    if bargain.drafted:
        pairs = load.pairs * (1 + more / np.maximum(load.tokens, 1.0))
        load = replace(load, tokens=load.tokens + more, samples=load.samples + more, pairs=pairs)
    return timeline, load.drawing(random_share(draft)).scoring(scored_tokens(draft))


def _steps(draft: PlanDraft) -> NDArray[np.int64]:
    """The steps in which each sample draws: one for its first token, then one for each that proposals do not spare."""
    if not draft.bargain.accepted:
        return draft.walked
    more = np.ceil((draft.walked - 1) / (1 + draft.bargain.accepted)).astype(np.int64)
    return np.minimum(1 + more, draft.walked)


def run_seconds(draft: PlanDraft, detail: int = ROUGH_SAMPLES, **changes: object) -> float:
    """Expected seconds of the whole run, with some fields of the draft changed; only comparable with other results of
    this function for the same `detail`."""
    changed = replace(draft, **changes)  # type: ignore[arg-type]
    return changed.price.total(run_draft(changed, detail)[1]).expected


def scored_tokens(draft: PlanDraft) -> int:
    """Prompt tokens whose log-probabilities are wanted, those of shared runs once."""
    params, forest = Distinct.of(draft.workload.params), draft.forest
    asked = params.flags(lambda p: p.prompt_logprobs is not None)
    if not asked.any():
        return 0
    first = forest.end.copy()  # [nodes] the place from which on some row below wants scores
    np.minimum.at(first, forest.leaf[asked], params.column(lambda p: max(p.logprob_start_len, 1))[asked])
    depth = sum_above(forest, np.ones(forest.n_nodes, np.int64))
    for level in range(int(depth.max(initial=0)), 1, -1):
        nodes = np.flatnonzero(depth == level)
        np.minimum.at(first, forest.parent[nodes], first[nodes])
    return int((forest.end - np.maximum(first, forest.start)).sum())


def random_share(draft: PlanDraft) -> float:
    """Share of the output tokens that are drawn at random; the others are greedy, which takes less time."""
    drawn = Distinct.of(draft.workload.params).column(lambda p: p.temperature > 0)
    tokens = draft.samples * draft.lengths
    return float((tokens * drawn).sum() / max(tokens.sum(), 1))

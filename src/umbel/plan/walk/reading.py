"""What a job's tokens read of the keys before them where selectors pick some, beside what all of it would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from umbel import registry
from umbel.cost.roofline import Load
from umbel.cost.selected import SelectedKeys
from umbel.cost.windows import Windows
from umbel.ir.spec import ModelSpec
from umbel.plan.draft import PlanDraft
from umbel.plan.walk.samples import WalkSamples
from umbel.plan.walk.sharing import left_nodes, left_rows


def selected_keys(techniques: Sequence[str], spec: ModelSpec) -> SelectedKeys | None:
    """What the selectors among some techniques (EngineConfig.technique) leave to read; None where there is none."""
    picks = {}
    for asked in techniques:
        row = registry.at("technique", asked)
        if row is not None and row.family == "select":
            picks[row.rows] = registry.load("select", row.name, row.settings_of(asked), spec)
    return SelectedKeys(Windows.of(spec), **picks) if picks else None


@dataclass(frozen=True, slots=True)
class PlannedKeys:
    """Keys that the tokens of prompts, those of shared runs once, and of answers read in a layer on average, at most,
    and those that they would read by themselves; `left_answers`: of both, those of rows that take no selector."""

    prompts: float
    all_prompts: float
    answers: float
    all_answers: float
    left_answers: float = 0.0

    @classmethod
    def of(cls, draft: PlanDraft) -> PlannedKeys | None:
        """What a draft's job reads; None where nothing selects."""
        selected = selected_keys(draft.config.technique, draft.spec)
        if selected is None:
            return None
        forest, rows = draft.forest, draft.order
        begin = forest.end[forest.leaf[rows]]
        end, samples = begin + np.maximum(draft.lengths[rows] - 1, 0), draft.samples[rows]
        everything = SelectedKeys(selected.windows)
        prompts, all_prompts = (k.between(forest.start, forest.end, answers=False) for k in (selected, everything))
        answers, all_answers = (k.between(begin, end, answers=True) * samples for k in (selected, everything))
        left = left_rows(draft)[rows]
        prompts = np.where(left_nodes(draft), all_prompts, prompts)
        answers = np.where(left, all_answers, answers)
        sums = (float(part.sum()) for part in (prompts, all_prompts, answers, all_answers, all_answers[left]))
        return cls(*sums)

    @property
    def share(self) -> float:
        """The share of the keys before them that answers read of rows that take a selector."""
        whole = self.all_answers - self.left_answers
        return (self.answers - self.left_answers) / whole if whole else 1.0

    @property
    def read(self) -> float:
        """Keys that are read."""
        return self.prompts + self.answers

    @property
    def whole(self) -> float:
        """Keys that there are."""
        return self.all_prompts + self.all_answers

    def lighten(self, load: Load, rows: WalkSamples, *, measured: bool) -> Load:
        """The load of steps with fewer pairs, and where nothing was measured with fewer keys read of what samples do
        not read together. Of calibrated steps `kv_read` counts whole paths, as runs do."""
        pairs = load.pairs * (self.read / max(self.whole, 1.0))
        total = float((load.steps * load.kv_read).sum())
        if measured or not total:
            return replace(load, pairs=pairs)
        own = float((rows.samples * rows.lengths * (rows.alone + rows.lengths / 2)).sum())
        skipped = min(own / total, 1.0) * (1 - self.answers / max(self.all_answers, 1.0))
        return replace(load, pairs=pairs, kv_read=load.kv_read * (1 - skipped))

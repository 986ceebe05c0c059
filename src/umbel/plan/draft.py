"""A plan while it is made: every field is usable from the start, and each pass returns a better draft."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.config import EngineConfig
from umbel.cost.drafts import Bargain
from umbel.cost.known import Known
from umbel.cost.roofline import Price
from umbel.ir.forest import Forest
from umbel.ir.plan import Decision, Refusal
from umbel.ir.soft_prompt import SoftPrompts
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.plan.for_rows import techniques_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PlanDraft:
    """The inputs of a plan (`workload`, `spec`, `config`, `price`) and the decisions so far (fields as in
    ir.plan.Plan)."""

    workload: Workload
    spec: ModelSpec
    config: EngineConfig
    price: Price
    forest: Forest
    order: Ints
    samples: Ints  # [rows] completions asked for
    lengths: Ints  # [rows] output tokens assumed per sample
    walked: Ints  # [rows] the same for walks of the plan: not the mean of each, but spread as answers are
    limits: Ints  # [rows] output tokens that a sample may reach
    bounds: Floats  # [2, rows] lengths expected at least and at most, for want of knowing
    groups: Ints  # [rows] which of `templates` a row belongs to
    same_as: Ints  # [rows] the row whose answer a row gets
    chunk: int
    kv_tokens: int
    admission: str  # the rule by which rows start
    templates: tuple[str, ...] = ("",)
    speculate: str = "off"  # who proposes tokens
    bargain: Bargain = field(default_factory=Bargain)  # and what comes of it, a sample and step
    output_spread: float = 0.0  # half the interval of all output tokens, as a share of them
    known: Known = field(default_factory=Known)  # what earlier runs have taught
    loaded: bool = False  # the weights are in memory already, so that free memory is free for KV
    decisions: tuple[Decision, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    @classmethod
    def of(cls, workload: Workload, spec: ModelSpec, config: EngineConfig, price: Price) -> PlanDraft:
        """The plan without a planner: rows as they come, nothing shared, smallest chunk, room for everything."""
        workload = techniques_of(config).put_apart(SoftPrompts.of(spec.adapters).put_before(workload))
        forest = flat_forest(workload)
        ones, rows = np.ones(len(workload), np.int64), np.arange(len(workload))
        chunk = config.chunk or price.machine.chunks[0]
        kv_tokens = config.kv_tokens or 0
        return cls(
            workload=workload,
            spec=spec,
            config=config,
            price=price,
            forest=forest,
            order=forest.order,
            samples=ones,
            lengths=ones,
            walked=ones,
            limits=ones,
            bounds=np.ones((2, len(rows))),
            groups=np.zeros_like(rows),
            same_as=rows,
            chunk=chunk,
            kv_tokens=kv_tokens,
            admission=config.admission,
        )

    def decide(self, decision: Decision, **changes: Any) -> PlanDraft:
        """The draft with some fields changed and the decision recorded."""
        return replace(self, decisions=(*self.decisions, decision), **changes)

    def refuse(self, *refusals: Refusal) -> PlanDraft:
        """The draft with techniques recorded that it does not use."""
        return replace(self, refusals=(*self.refusals, *refusals))


def flat_forest(workload: Workload) -> Forest:
    """The forest that shares nothing: one root a row."""
    n = len(workload)
    rows, ones = np.arange(n), np.ones(n, np.int64)
    lengths = np.diff(workload.offsets)
    return Forest(
        parent=-ones,
        start=np.zeros(n, np.int64),
        end=lengths,
        source=rows,
        subtree_end=rows + 1,
        rows_below=ones,
        leaf=rows,
        order=rows,
    )

"""Makes the plan: an ordered list of small pure passes over a draft, then one walk on the clock for the estimates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from umbel import registry
from umbel.config import EngineConfig
from umbel.cost.drafts import Bargain
from umbel.cost.known import Known
from umbel.cost.machine import Machine
from umbel.cost.quantised import price_of
from umbel.cost.roofline import Load, Seconds
from umbel.cost.windows import Windows
from umbel.errors import UsageError, nearest
from umbel.ir.distinct import Distinct
from umbel.ir.forest import Forest
from umbel.ir.plan import Decision, Estimates, Level, Plan
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.plan.draft import PlanDraft
from umbel.plan.passes.adapters import name_adapters
from umbel.plan.passes.dedupe import answer_once
from umbel.plan.passes.formats import name_formats
from umbel.plan.passes.lengths import assume_lengths, output_range
from umbel.plan.passes.memory import size_pool
from umbel.plan.passes.order import order_rows
from umbel.plan.passes.pack import choose_chunk
from umbel.plan.passes.prefix import share_prefixes, sum_above
from umbel.plan.passes.speculate import choose_drafter
from umbel.plan.passes.techniques import weigh_techniques
from umbel.plan.walk.cutting import spared_tokens
from umbel.plan.walk.pricing import SKETCH_SAMPLES, run_draft, run_seconds

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Pass = Callable[[PlanDraft], PlanDraft]

PASSES: Mapping[str, Pass] = MappingProxyType(
    {
        "prefix": share_prefixes,
        "lengths": assume_lengths,
        "dedupe": answer_once,
        "pack": choose_chunk,
        "memory": size_pool,
        "order": order_rows,  # late: it prices whole runs
        "adapters": name_adapters,
        "speculate": choose_drafter,
        "techniques": weigh_techniques,
    }
)


def _forget(draft: PlanDraft) -> PlanDraft:
    """Stand in for the lengths pass: rows run to their limits, whatever the history says."""
    return PASSES["lengths"](replace(draft, known=replace(draft.known, lengths={})))


def _admit_all(draft: PlanDraft) -> PlanDraft:
    """Stand in for the memory pass: the pool is sized, but rows start while there is room now."""
    return PASSES["memory"](replace(draft, admission="aggressive"))


# Passes without which there is no plan: what is done instead when they are left out.
_INSTEAD: Mapping[str, Pass] = MappingProxyType({"lengths": _forget, "memory": _admit_all})


def make_plan(
    workload: Workload,
    spec: ModelSpec,
    config: EngineConfig,
    machine: Machine,
    *,
    loaded: bool = False,
    known: Known | None = None,
    asked_dtype: str | None = None,
) -> Plan:
    """Plan a workload for a model on a machine.

    `machine.memory_bytes`: free for KV when the weights are `loaded`, for both when they are not.
    `known`: the history of earlier runs.
    `asked_dtype`: what the user asked for, where `config.dtype` is the result.

    Raises CapacityError when a row cannot fit, UsageError when `config.skip` names an unknown pass.
    """
    draft = draft_of(workload, spec, config, machine, loaded=loaded, known=known, asked_dtype=asked_dtype)
    for _, run in chosen_passes(config.skip):
        draft = run(draft)
    return plan_of(draft, _estimate(draft))


def draft_of(
    workload: Workload,
    spec: ModelSpec,
    config: EngineConfig,
    machine: Machine,
    *,
    loaded: bool,
    known: Known | None,
    asked_dtype: str | None,
) -> PlanDraft:
    """The draft before the first pass, with what is decided for any rows; arguments as in make_plan."""
    dtype, known = _dtype(spec, config, machine, asked_dtype or config.dtype), known or Known()
    price = price_of(spec, replace(config, dtype=str(dtype.value)), machine, known.calibration)
    draft = replace(PlanDraft.of(workload, spec, config, price), loaded=loaded, known=known)
    return name_formats(draft.decide(Decision("machine", machine.name, price.source)).decide(dtype))


def plan_of(draft: PlanDraft, estimates: Estimates) -> Plan:
    """The draft as a plan."""
    return Plan(
        forest=draft.forest,
        order=draft.order,
        chunk=draft.chunk,
        kv_tokens=draft.kv_tokens,
        page_size=draft.config.page_size,
        lengths=draft.lengths,
        groups=draft.groups,
        templates=draft.templates,
        same_as=draft.same_as,
        admission=draft.admission,
        decisions=draft.decisions,
        refusals=draft.refusals,
        estimates=estimates,
        lossy=tuple(f"{row.family} {row.name}" for row in registry.lossy(draft.config)),
        notes=draft.spec.notes,
        speculate=draft.speculate,
        step_cost=_step_cost(draft),
        has_states=bool(draft.spec.recurrences),
    )


def _step_cost(draft: PlanDraft) -> float:
    """Tokens of full steps that take as long as a step of one sample."""
    pairs = Windows.of(draft.spec).pairs(np.array([0]), np.array([draft.chunk])).sum()
    loads = (Load.one(draft.chunk, 1, pairs, 0), Load.one(1, 1, 1, 1))
    full, least = (float(draft.price.each(load)[0]) for load in loads)
    return draft.chunk * least / full if full > 0 else 0.0


def chosen_passes(skip: tuple[str, ...]) -> Iterator[tuple[str, Pass]]:
    """The passes by name, in order, without those to skip or with what is done instead. Raises UsageError."""
    for name in skip:
        if name not in PASSES:
            raise UsageError(f"skip={name!r}: must be one of {', '.join(PASSES)}{nearest(name, PASSES)}")
    for name, run in PASSES.items():
        if name not in skip:
            yield name, run
        elif name in _INSTEAD:
            yield name, _INSTEAD[name]


def _dtype(spec: ModelSpec, config: EngineConfig, machine: Machine, asked: str) -> Decision:
    dtype = machine.choose_dtype(config.dtype, spec.dtype)
    if asked != "auto":
        return Decision("dtype", dtype, "as asked")
    if dtype == spec.dtype:
        return Decision("dtype", dtype, "the model's own")
    return Decision("dtype", dtype, "this machine has no matmuls in the model's {own}", facts={"own": spec.dtype})


def _estimate(draft: PlanDraft) -> Estimates:
    forest = draft.forest
    timeline, load = run_draft(replace(draft, bargain=Bargain()))  # how full the pool gets, and pictures
    sped, sped_load = run_draft(draft) if draft.bargain.drafted else (timeline, load)
    samples, limits, bounds = draft.samples[draft.order], draft.limits[draft.order], draft.bounds[:, draft.order]
    output = int((samples * draft.lengths[draft.order]).sum())
    between = output_range(samples, limits, bounds, draft.output_spread * output)
    return Estimates(
        rows=len(draft.workload),
        samples=int(draft.samples.sum()),
        duplicate_rows=duplicate_rows(draft.workload, forest),
        prompt_tokens=len(draft.workload.tokens),
        computed_prompt_tokens=forest.n_tokens - spared_tokens(draft),
        output_tokens=output,
        kv_peak_tokens=timeline.kv_peak_tokens,
        steps=sped.steps,
        seconds=_seconds(draft, draft.price.total(sped_load)),
        saved_seconds=_saved_seconds(draft),
        levels=levels(forest),
        curve=timeline.curve(draft.price.each(load)),
        output_range=between,
    )


def _seconds(draft: PlanDraft, time: Seconds) -> tuple[float, float, float]:
    """The interval of the time: by that of the price, and by those of the lengths, as if neither knew of the other."""
    if not draft.output_spread and (draft.bounds == draft.lengths).all():
        return time.low, time.expected, time.high
    usual = run_seconds(draft, SKETCH_SAMPLES)
    low, high = (
        run_seconds(draft, SKETCH_SAMPLES, walked=_stretched(draft, bound, spread)) / usual
        for bound, spread in zip(draft.bounds, (-draft.output_spread, draft.output_spread), strict=True)
    )
    if not time.expected > time.low > 0.0:
        return time.low, time.expected, time.high
    below = math.hypot(math.log(time.expected / time.low), math.log(min(low, 1.0)))
    above = math.hypot(math.log(time.high / time.expected), math.log(max(high, 1.0)))
    return time.expected * math.exp(-below), time.expected, time.expected * math.exp(above)


def _stretched(draft: PlanDraft, bound: Floats, spread: float) -> Ints:
    """The lengths to walk (`[rows]`) if rows were as long as they may be for want of knowing, and differ by chance."""
    longer = draft.walked * bound / np.maximum(draft.lengths, 1) * (1 + spread)
    return np.clip(np.rint(longer), np.minimum(draft.walked, 1), draft.limits).astype(np.int64)


def duplicate_rows(workload: Workload, forest: Forest) -> int:
    """The number of rows with the tokens and the parameters of an earlier row; equal prompts end at the same leaf."""
    params, kinds = Distinct.of(workload.params).by_value()
    return len(params) - len(np.unique(forest.leaf * kinds + params))


def levels(forest: Forest) -> tuple[Level, ...]:
    """The forest by depth, its roots first."""
    depth = sum_above(forest, np.ones(forest.n_nodes, np.int64)) - 1
    size = forest.end - forest.start

    def by_depth(values: Ints) -> list[int]:
        return [int(v) for v in np.bincount(depth, values)]

    columns = (np.ones_like(size), size, forest.rows_below, size * (forest.rows_below - 1))
    return tuple(Level(*row) for row in zip(*(by_depth(c) for c in columns), strict=True))


def _saved_seconds(draft: PlanDraft) -> float:
    """The cost of the tokens that sharing saves, in full steps at the expected price."""
    forest, workload = draft.forest, draft.workload
    windows = Windows.of(draft.spec)
    lengths = np.diff(workload.offsets)
    tokens = len(workload.tokens) - forest.n_tokens + spared_tokens(draft)
    pairs = windows.pairs(np.zeros_like(lengths), lengths).sum() - windows.pairs(forest.start, forest.end).sum()
    steps = tokens / draft.chunk
    if not steps:
        return 0.0
    return float(draft.price.each(Load.one(draft.chunk, 0, pairs / steps, 0))[0]) * steps

"""Makes the plan: an ordered list of small pure passes over a draft, then one walk on the clock for the estimates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from umbel.config import EngineConfig
from umbel.cost.machine import Machine
from umbel.cost.roofline import Load, Price
from umbel.cost.shape import Shape, causal_pairs
from umbel.ir.forest import Forest
from umbel.ir.plan import Decision, Estimates, Level, Plan
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.plan.draft import Draft
from umbel.plan.passes.lengths import assume_lengths
from umbel.plan.passes.memory import size_pool
from umbel.plan.passes.order import order_rows
from umbel.plan.passes.pack import choose_chunk
from umbel.plan.passes.prefix import share_prefixes, sum_above
from umbel.plan.timeline import Rows, walk

Ints = NDArray[np.int64]
Pass = Callable[[Draft], Draft]

PASSES: tuple[Pass, ...] = (assume_lengths, share_prefixes, order_rows, choose_chunk, size_pool)


def make_plan(
    workload: Workload,
    spec: ModelSpec,
    config: EngineConfig,
    machine: Machine,
    *,
    loaded: bool = False,
    passes: tuple[Pass, ...] = PASSES,
) -> Plan:
    """Plan a workload for a model on a machine.

    `machine.memory_bytes` is what is free for KV when the weights are `loaded`, for both when they are not. Raises
    CapacityError when a row cannot fit.
    """
    dtype = _dtype(spec, config, machine)
    price = Price(Shape.of(spec, str(dtype.value)), machine, str(dtype.value), spec.n_layers)
    draft = Draft.of(workload, spec, config, price, loaded=loaded)
    draft = draft.decide(Decision("machine", machine.name, machine.source)).decide(dtype)
    for run in passes:
        draft = run(draft)
    estimates = _estimate(draft)
    return Plan(
        forest=draft.forest,
        order=draft.order,
        chunk=draft.chunk,
        kv_tokens=draft.kv_tokens,
        page_size=config.page_size,
        lengths=draft.lengths,
        decisions=draft.decisions,
        estimates=estimates,
    )


def _dtype(spec: ModelSpec, config: EngineConfig, machine: Machine) -> Decision:
    if config.dtype != "auto":
        return Decision("dtype", config.dtype, "as asked")
    if spec.dtype in machine.dtypes:
        return Decision("dtype", spec.dtype, "the model's own")
    return Decision("dtype", "float32", f"this machine has no matmuls in the model's {spec.dtype}")


def _estimate(draft: Draft) -> Estimates:
    forest, page = draft.forest, draft.config.page_size
    rows = Rows.of(forest, draft.order, draft.samples, draft.lengths, page, draft.spec.sliding_window)
    timeline = walk(forest, draft.order, rows, draft.chunk, draft.kv_tokens, page)
    time = draft.price.total(timeline.load)
    return Estimates(
        rows=len(draft.workload),
        samples=int(draft.samples.sum()),
        duplicate_rows=duplicate_rows(draft.workload, forest),
        prompt_tokens=len(draft.workload.tokens),
        computed_prompt_tokens=forest.n_tokens,
        output_tokens=int((draft.samples * draft.lengths).sum()),
        kv_peak_tokens=timeline.kv_peak_tokens,
        steps=timeline.steps,
        seconds=(time.low, time.expected, time.high),
        saved_seconds=_saved_seconds(draft),
        levels=levels(forest),
    )


def duplicate_rows(workload: Workload, forest: Forest) -> int:
    """Rows with the tokens and the parameters of an earlier row; equal prompts end at the same leaf."""
    numbers: dict[object, int] = {}
    params = np.array([numbers.setdefault(p, len(numbers)) for p in workload.params], np.int64)
    if not len(params):
        return 0
    return len(params) - len(np.unique(forest.leaf * len(numbers) + params))


def levels(forest: Forest) -> tuple[Level, ...]:
    """The forest by depth, its roots first."""
    depth = sum_above(forest, np.ones(forest.n_nodes, np.int64)) - 1
    size = forest.end - forest.start

    def by_depth(values: Ints) -> list[int]:
        return [int(v) for v in np.bincount(depth, values)]

    columns = (np.ones_like(size), size, forest.rows_below, size * (forest.rows_below - 1))
    return tuple(Level(*row) for row in zip(*(by_depth(c) for c in columns), strict=True))


def _saved_seconds(draft: Draft) -> float:
    """What the tokens that are not computed again would have cost, in full steps at the expected price."""
    forest, workload = draft.forest, draft.workload
    window = draft.spec.sliding_window
    lengths = np.diff(workload.offsets)
    tokens = len(workload.tokens) - forest.n_tokens
    pairs = int(causal_pairs(np.zeros_like(lengths), lengths, window).sum())
    pairs -= int(causal_pairs(forest.start, forest.end, window).sum())
    steps = tokens / draft.chunk
    if not steps:
        return 0.0
    return float(draft.price.each(Load.one(draft.chunk, 0, pairs / steps, 0))[0]) * steps

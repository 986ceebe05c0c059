"""The least work of a workload: its arithmetic and memory traffic when every shared run is computed once, and the
seconds they take at the machine's best rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from umbel.bench.workloads import Row
from umbel.cost.shape import Shape
from umbel.cost.windows import Windows
from umbel.ir.forest import Forest
from umbel.ir.params import SamplingParams
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.plan.passes.prefix import build_forest


@dataclass(frozen=True, slots=True)
class Floor:
    """Counts of one workload: tokens of all prompts and those among them that differ, tokens out, FLOPs, bytes."""

    prompt_tokens: int
    distinct_tokens: int
    output_tokens: int
    flops: int
    n_bytes: int

    def arithmetic(self, flops_per_second: float) -> float:
        """Seconds of arithmetic at a matmul rate."""
        return self.flops / flops_per_second

    def traffic(self, bytes_per_second: float) -> float:
        """Seconds of reading and writing memory at a bandwidth."""
        return self.n_bytes / bytes_per_second


def floor_of(rows: Sequence[Row], spec: ModelSpec, dtype: str) -> Floor:
    """The floor of a workload for a model that computes in `dtype`.

    Arithmetic: each distinct prompt token and each generated token but the last of a sample passes through the layers
    once, the end of the last one and the output head run for every token that is sampled, attention sees only the keys
    it must. Bytes: one pass
    over the weights for the prompts and one for each decoding step of the longest answer; KV of a shared run is read
    once a step while any row below it is still generating.
    """
    shape = Shape.of(spec, dtype)
    forest = build_forest(Workload.of([row.prompt for row in rows], SamplingParams()))
    lengths = np.array([len(row.prompt) for row in rows], np.int64)
    steps = np.array([row.max_tokens - 1 for row in rows], np.int64)
    samples = np.array([row.n for row in rows], np.int64)
    out, fed, windows = int(((steps + 1) * samples).sum()), int((steps * samples).sum()), Windows.of(spec)
    pairs = windows.pairs(forest.start, forest.end).sum()
    pairs += (windows.pairs(lengths, lengths + steps) * samples).sum()
    computed = forest.n_tokens + fed
    flops = shape.token_flops * computed + shape.head_flops * out + round(shape.pair_flops * float(pairs))
    weights = (1 + int(steps.max())) * (shape.layer_bytes + shape.head_bytes)
    read = _prompt_reads(forest, steps) + int((steps * (steps + 1) // 2 * samples).sum())
    kv = round(shape.kv_bytes * (computed + read * windows.unbounded_share))
    return Floor(int((lengths * samples).sum()), forest.n_tokens, out, flops, weights + kv)


def _prompt_reads(forest: Forest, steps: np.ndarray) -> int:
    """Prompt positions read while decoding: each run once in every step in which some row below it is alive."""
    alive = np.zeros(forest.n_nodes, np.int64)
    np.maximum.at(alive, forest.leaf, steps)
    for node in range(forest.n_nodes - 1, -1, -1):  # children stand behind their parents
        parent = forest.parent[node]
        if parent >= 0:
            alive[parent] = max(alive[parent], alive[node])
    return int(((forest.end - forest.start) * alive).sum())

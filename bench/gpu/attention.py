"""The part `kernels`: one layer's attention over the forest, alone, against what others have and against the floors.

Cases are those of Hydragen (arXiv 2402.05099): pairs of batch and shared prefix with 8 query heads over one KV head of
128, and 1,024 rows behind 1K to 16K; decodes that share nothing, on pages; trees of two and three levels; prompts. Ours
is timed with keys and values stored, as in a step; every case is checked against the definition, in float64 on a few
rows, before it is timed. Calls are replays of CUDA graphs where they can be captured, so times are the device's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.gpu.peers import PEERS, NotHere
from bench.gpu.stage import Stage, Times, time_calls
from bench.gpu.trees import PAGE, Node, decodes, held, pairs, prompts, step_of, tree
from umbel.attention.triton import TritonAttention
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.reference import attend
from umbel.kv.slots import path_slots, row_nodes
from umbel.kv.store import KVStore

HYDRAGEN = ModelSpec("llama", 97, 48, 1, 8, 1, 128, 64, 1 << 20, 1e-6, 1e4)
LLAMA = ModelSpec("llama", 97, 48, 1, 32, 8, 128, 64, 1 << 20, 1e-6, 1e4)  # a layer of Llama-3.1-8B
TINY = ModelSpec("llama", 97, 48, 1, 4, 1, 32, 64, 1 << 20, 1e-6, 1e4)
PAIRS = ((512, 1024), (1024, 2048), (2048, 4096), (4096, 8192))
PLAIN, SHARED, TWO, THREE = "plain paged decode", "shared decode", "two levels", "three levels"


@dataclass(frozen=True, slots=True)
class Case:
    """One step of one layer; `kind` says which peers can do it."""

    name: str
    kind: str
    spec: ModelSpec
    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        return self.name


def cases(*, small: bool) -> list[Case]:
    """What is timed, the asked figures first."""
    if small:
        return [
            Case("2 rows of 20", PLAIN, TINY, tuple(decodes(2, 0, 20))),
            Case("3 rows behind 40", SHARED, TINY, tuple(decodes(3, 40, 5))),
            Case("three levels", THREE, TINY, tuple(tree([(1, 33), (2, 16), (2, 0)], 3))),
        ]
    k = 1024
    plain = [Case(f"256 rows of {n}K", PLAIN, LLAMA, tuple(decodes(256, 0, n * k))) for n in (1, 2, 4, 8, 16)]
    behind = [Case(f"1,024 rows behind {n}K", SHARED, LLAMA, tuple(decodes(k, n * k, 33))) for n in (1, 2, 4, 8, 16)]
    levels = [
        Case(f"{n}K, 256 rows of 128", TWO, LLAMA, tuple(decodes(256, n * k, 128))) for n in (2, 8)
    ] + [
        Case("4K, 16 of 1K, 16 rows of 128 each", THREE, LLAMA, tuple(tree([(1, 4 * k), (16, k), (16, 0)], 128))),
        Case("8K, 8 of 2K, 32 rows of 64 each", THREE, LLAMA, tuple(tree([(1, 8 * k), (8, 2 * k), (32, 0)], 64))),
    ]  # fmt: skip
    hydragen = [
        Case(f"{rows:,} rows of {own} behind {shared:,}", SHARED, HYDRAGEN, tuple(decodes(rows, shared, own)))
        for rows, shared in PAIRS
        for own in (1, 128, 512)
    ]
    prefill = [Case(f"prompt of {n}", "prefill", LLAMA, tuple(prompts(1, n))) for n in (512, 2048, 8192)]
    return plain + behind + levels + hydragen + prefill


@torch.inference_mode()
def time_kernels(stage: Stage) -> None:
    """One row of the table for each case."""
    each = 0.0 if stage.small else 6.0
    for case in stage.each("the cases of the kernel", cases(small=stage.small), each):
        try:
            stage.found.row("Attention of one layer", **_measure(case, stage))
        except (RuntimeError, ValueError) as error:  # out of memory, or a kernel that does not compile: others may
            stage.found.check(f"attention, {case.name}", False, f"{type(error).__name__}: {str(error)[:300]}")
        stage.free()


def _measure(case: Case, stage: Stage) -> dict[str, str | float | None]:
    spec, step = case.spec, step_of(case.nodes, sampled=False)
    store = KVStore(spec, len(step.pages), PAGE, stage.dtype, stage.device)
    for tensor in store.keys + store.values:
        tensor.normal_()
    q = torch.randn((step.n_rows, spec.n_heads, spec.head_dim), device=stage.device).to(stage.dtype)
    ours = TritonAttention(spec, store, stage.device)
    ours.prepare(step)
    error = worst_of(step, store, spec, q, ours.attend(0, q))
    limit = 2e-5 if stage.dtype == torch.float32 else 2e-2
    stage.found.check(f"attention, {case.name}", error < limit, f"relative error {error:.2g}, allowed {limit:g}")
    mine = time_calls(lambda: ours.attend(0, q), stage)
    width = 2 * spec.n_kv_heads * spec.head_dim * stage.dtype.itemsize
    floor = stage.floor(4 * pairs(step) * spec.n_heads * spec.head_dim, held(step) * width)
    least = max(floor.values())
    found = {"case": case.name, "kind": case.kind, "ours ms": mine.ms, "spread": mine.spread, **floor}
    found |= {"share of floor": least / mine.ms, "share of arithmetic": floor["arithmetic ms"] / mine.ms}
    return found | _peers(case, step, store, q, mine, stage)


def _peers(
    case: Case, step: Step, store: KVStore, q: Tensor, mine: Times, stage: Stage
) -> dict[str, float | str | None]:
    """For each peer that can do the case: how many times as long as ours it takes; None where it cannot, "not
    installed"."""
    found: dict[str, float | str | None] = {}
    for name, peer in PEERS.items():
        found[f"x {name}"] = None
        if case.kind not in peer.kinds:
            continue
        try:
            act: Callable[[], Tensor] = peer.make(case.spec, step, store, q, case.nodes)
            error = worst_of(step, store, case.spec, q, act())
            theirs = time_calls(act, stage)
            found[f"x {name}"] = theirs.ms / mine.ms if error < 3e-2 else f"wrong by {error:.2g}"
        except NotHere as why:
            found[f"x {name}"] = str(why)
        except Exception as error:  # whatever a library raises is no fault of ours
            stage.found.note(f"{name} on {case.name}: {type(error).__name__}: {str(error)[:300]}")
            found[f"x {name}"] = "failed"
        stage.free()
    return found


def worst_of(step: Step, store: KVStore, spec: ModelSpec, q: Tensor, out: Tensor, rows: int = 4) -> float:
    """|out - definition| / |definition| over a few rows, the definition in float64."""
    if not torch.isfinite(out).all():
        return float("inf")
    nodes, worst = row_nodes(step), 0.0
    for row in np.unique(np.linspace(0, step.n_rows - 1, rows).astype(int)):
        positions = np.arange(step.positions[row] + 1)[None]
        slots = torch.from_numpy(path_slots(step, nodes[row : row + 1], positions)[0]).to(q.device)
        keys, values = (t[0][:, slots].double() for t in (store.keys, store.values))
        query = q[row].double().view(spec.n_kv_heads, spec.kv_shape(0).group_size, -1)
        wanted = attend(query, keys, values, spec.kv_shape(0).scale).reshape(spec.n_heads, -1)
        worst = max(worst, float((out[row].double() - wanted).norm() / wanted.norm()))
    return worst

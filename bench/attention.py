"""Seconds of one layer's attention: compiled kernels against torch's grid backend and SDPA over gathered pages.

    python bench/attention.py [--repeats 5] [--threads 2] [--kv float32] [--shapes 0.6B,135M] [--cpu-time]

Every case is one step over a KV pool of pages of 16: decoding rows behind a shared prefix, decoding rows that share
nothing, and a chunk of a prompt behind what came before it. The engines take turns; figures are medians of `--repeats`
in milliseconds. "sdpa" is torch's scaled_dot_product_attention with grouped heads over each row's own keys and values
("gather" is what copying them there costs beside it), for one decoding row the query heads of a KV group folded into
rows, which is its fastest form. "floor" is arithmetic at the measured matmul rate or reading at the measured bandwidth,
whichever is longer, each shared run read and multiplied once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from umbel.attention.grid import GridAttention
from umbel.attention.native import NativeAttention
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Sampling, Step
from umbel.kernels.dispatch import kernels
from umbel.kv.slots import path_slots, row_nodes
from umbel.kv.store import KVStore

SHAPES = {"0.6B": (16, 8, 128), "135M": (9, 3, 64)}  # heads, KV heads, dimensions
PAGE = 16
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """One step: `rows` sequences, each `own` tokens behind `shared` common ones; the last `new` are computed now."""

    name: str
    rows: int
    shared: int
    own: int
    new: int = 1


CASES = (
    *(Case(f"decode, 64 rows, shared {shared}", 64, shared, 33) for shared in (512, 1024, 2048, 4096, 8192)),
    Case("decode, 64 rows, shared 1000, forks between cells", 64, 1000, 33),
    Case("decode, 64 rows of 512, nothing shared", 64, 0, 512),
    Case("decode, 8 rows of 2048, nothing shared", 8, 0, 2048),
    Case("decode, 1 row of 4096", 1, 0, 4096),
    Case("prefill, first 512 tokens", 1, 0, 512, 512),
    Case("prefill, 512 tokens behind 2048", 1, 0, 2560, 512),
    Case("prefill, 16 rows of 32 tokens, shared 1024", 16, 1024, 32, 32),
)


def step_of(case: Case) -> Step:
    """The step of a case; pages of a node lie side by side."""
    roots = 1 if case.shared else 0
    n_nodes = roots + case.rows
    start = np.array([0] * roots + [case.shared] * case.rows)
    end = np.array([case.shared] * roots + [case.shared + case.own] * case.rows)
    row_end = np.concatenate([[0] * roots, (np.arange(case.rows) + 1) * case.new]).astype(np.int64)
    row_begin = np.concatenate([[0] * roots, np.arange(case.rows) * case.new]).astype(np.int64)
    n_pages = -(-(end - start) // PAGE)
    positions = np.tile(np.arange(case.shared + case.own - case.new, case.shared + case.own), case.rows)
    below = row_end.copy()
    below[:roots] = case.rows * case.new
    nothing = np.empty(0, np.int64)
    sampling = Sampling(nothing, *(nothing.astype(float),) * 1, nothing, *(nothing.astype(float),) * 2, *(nothing,) * 5)
    return Step(
        np.zeros(len(positions), np.int64), positions, np.ones(len(positions), bool),
        np.array([-1] * roots + [roots - 1] * case.rows), start, end, row_begin, row_end, below,
        np.arange(n_pages.sum()), np.concatenate([[0], np.cumsum(n_pages)[:-1]])[:n_nodes], PAGE, sampling,
    )  # fmt: skip


def flops(case: Case, spec: ModelSpec) -> float:
    """Multiplications and additions of scores and weighted values over all visible pairs."""
    last = case.shared + case.own
    pairs = case.rows * sum(range(last - case.new + 1, last + 1))
    return 4.0 * pairs * spec.n_heads * spec.head_dim


def sdpa(
    step: Step, case: Case, spec: ModelSpec, store: KVStore
) -> tuple[Callable[[], object], Callable[[Tensor], Tensor]]:
    """(gather, attend): copy each row's keys and values out of the pages; SDPA over the copies."""
    last = case.shared + case.own
    tails = row_nodes(step)[:: case.new]
    slots = torch.from_numpy(path_slots(step, tails, np.tile(np.arange(last), (case.rows, 1))))
    dense: list[Tensor] = []

    def gather() -> object:
        dense[:] = [t[0][:, slots].transpose(0, 1).contiguous() for t in (store.keys, store.values)]
        return dense

    mask = None
    if case.new > 1:
        mask = torch.arange(last)[None] <= torch.arange(last - case.new, last)[:, None]

    def attend(q: Tensor) -> Tensor:
        keys, values = dense  # [rows, kv heads, last, dim]
        if case.new == 1:
            folded = q.view(case.rows, spec.n_kv_heads, spec.group_size, spec.head_dim)
            return F.scaled_dot_product_attention(folded, keys, values).reshape(q.shape)
        apart = q.view(case.rows, case.new, spec.n_heads, spec.head_dim).transpose(1, 2)
        out = F.scaled_dot_product_attention(apart, keys, values, mask, enable_gqa=True)
        return out.transpose(1, 2).reshape(q.shape)

    return gather, attend


def milliseconds(act: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Of one call; short ones are repeated within."""
    times, begin = 0, clock()
    while True:
        act()
        times += 1
        if (took := clock() - begin) > 0.01:
            return took / times * 1e3


@torch.inference_mode()
def measure(
    case: Case, spec: ModelSpec, dtype: torch.dtype, repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Medians of every engine on one case, and the largest difference from the grid backend."""
    step = step_of(case)
    native = kernels().native
    assert native is not None, kernels().reason
    store = KVStore(spec, len(step.pages), PAGE, dtype, CPU)
    for tensor in store.keys + store.values:
        tensor.normal_()
    q = torch.randn(step.n_rows, spec.n_heads, spec.head_dim).to(dtype)
    k, v = (torch.randn(step.n_rows, spec.n_kv_heads, spec.head_dim).to(dtype) for _ in range(2))
    compiled, grid = NativeAttention(spec, store, native), GridAttention(spec, store, CPU)
    gather, dense = sdpa(step, case, spec, store)
    compiled.prepare(step), grid.prepare(step), compiled.forward(0, q, k, v), gather()
    acts: dict[str, Callable[[], object]] = {
        "native": lambda: compiled.forward(0, q, k, v),
        "grid": lambda: grid.forward(0, q, k, v),
        "sdpa": lambda: dense(q),
        "gather": gather,
        "lay out": lambda: compiled.prepare(step),
        "lay out (grid)": lambda: grid.prepare(step),
    }
    taken: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(repeats):
        for name, act in acts.items():
            taken[name].append(milliseconds(act, clock))
    figures = {name: statistics.median(times) for name, times in taken.items()}
    figures["error"] = float((compiled.forward(0, q, k, v) - grid.forward(0, q, k, v)).abs().max())
    figures["gflop"] = flops(case, spec) / 1e9
    figures["mb"] = compiled.prepare(step) * 2 * spec.n_kv_heads * spec.head_dim * store.keys[0].element_size() / 1e6
    return figures


def ceilings(dtype: torch.dtype, clock: Callable[[], float]) -> tuple[float, float]:
    """GFLOP/s of a large matmul and GB/s of reading, on torch's threads."""
    a, x = torch.randn(2048, 2048).to(dtype), torch.randn(32_000_000)
    matmul = min(milliseconds(lambda: a @ a, clock) for _ in range(5))
    read = min(milliseconds(x.sum, clock) for _ in range(5))
    return 2 * 2.048**3 / matmul * 1e3, 0.128 / read * 1e3


def main() -> None:
    """Run all cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kv", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--shapes", default="0.6B,135M")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time: steadier on a busy machine, one thread"
    )
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    clock = time.process_time if asked.cpu_time else time.perf_counter
    torch.set_num_threads(asked.threads)
    rate, bandwidth = ceilings(getattr(torch, asked.kv), clock)
    print(f"{kernels().reason}; matmul {rate:.0f} GFLOP/s, read {bandwidth:.1f} GB/s\n")
    head = ("shape", "case", "native", "grid", "sdpa", "gather", "floor", "of floor", "GFLOP/s", "lay out", "(grid)")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    results = []
    for shape in asked.shapes.split(","):
        heads, kv_heads, dim = SHAPES[shape]
        spec = ModelSpec("qwen3", 97, 48, 1, heads, kv_heads, dim, 64, 1 << 20, 1e-6, 1e4)
        for case in (c for c in CASES if asked.only in c.name):
            f = measure(case, spec, getattr(torch, asked.kv), asked.repeats, clock)
            floor = max(f["gflop"] / rate, f["mb"] / 1e3 / bandwidth) * 1e3
            results.append({"shape": shape, "case": case.name, "floor": floor, **f})
            cells = [f"{f[name]:.2f}" for name in ("native", "grid", "sdpa", "gather")]
            cells += [f"{floor:.2f}", f"{floor / f['native']:.0%}", f"{f['gflop'] / f['native'] * 1e3:.0f}"]
            cells += [f"{f['lay out']:.3f}", f"{f['lay out (grid)']:.2f}"]
            print(f"| {shape} | {case.name} | {' | '.join(cells)} |", flush=True)
    if asked.json:
        asked.json.write_text(
            json.dumps({"matmul_gflops": rate, "read_gbs": bandwidth, "cases": results}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()

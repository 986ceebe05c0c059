"""Milliseconds of one layer's attention: compiled kernels against SDPA over gathered pages, and the machine's floors.

    python bench/attention.py [--dtype bfloat16] [--repeats 5] [--threads 2] [--shapes 0.6B,135M] [--only decode]

Every case is one step over a KV pool of pages of 16: decoding rows behind a shared prefix, decoding rows that share
nothing, and chunks of prompts. The engines take turns; figures are medians of `--repeats`, with the spread of ours
(largest minus smallest, over the median), as a Markdown table. "sdpa" is torch's scaled_dot_product_attention with
grouped heads over each row's own keys and values, and "gather" what copying them out of the pages into memory at hand
costs beside it; for one decoding row the query heads of a KV group are folded into rows, which is its fastest form.
"arithmetic" is the time of the multiplications at the rate of a large matmul in the same type, "bytes" that of reading
each shared run of keys and values once at the measured bandwidth, both measured in the same run; the floor is the
larger one.
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
    *(Case(f"decode, {rows} rows, shared 2048", rows, 2048, 33) for rows in (4, 16, 256)),
    *(
        Case(f"decode, {rows} rows of {own}, nothing shared", rows, 0, own)
        for rows in (8, 64)
        for own in (128, 512, 2048)
    ),
    *(Case(f"decode, 1 row of {own}", 1, 0, own) for own in (128, 1024, 8192)),
    *(Case(f"prefill, first {new} tokens", 1, 0, new, new) for new in (32, 128, 512, 2048)),
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
    pages = store.keys[0], store.values[0]
    slots = torch.from_numpy(path_slots(step, tails, np.tile(np.arange(last), (case.rows, 1)))).flatten()
    slots = slots.to(pages[0].device)
    copies = [t.new_empty(t.shape[0], len(slots), t.shape[2]) for t in pages]

    def gather() -> object:
        return [torch.index_select(t, 1, slots, out=copy) for t, copy in zip(pages, copies, strict=True)]

    # [rows, kv heads, last, dim]
    keys, values = (copy.view(copy.shape[0], case.rows, last, -1).transpose(0, 1) for copy in copies)
    mask = None
    if case.new > 1:
        mask = (torch.arange(last)[None] <= torch.arange(last - case.new, last)[:, None]).to(slots.device)

    def attend(q: Tensor) -> Tensor:
        if case.new == 1:
            folded = q.view(case.rows, spec.n_kv_heads, spec.kv_shape(0).group_size, spec.head_dim)
            return F.scaled_dot_product_attention(folded, keys, values).reshape(q.shape)
        apart = q.view(case.rows, case.new, spec.n_heads, spec.head_dim).transpose(1, 2)
        out = F.scaled_dot_product_attention(apart, keys, values, mask, enable_gqa=True)
        return out.transpose(1, 2).reshape(q.shape)

    return gather, attend


def milliseconds(act: Callable[[], object]) -> float:
    """Milliseconds of one call; short ones are repeated within."""
    times, begin = 0, time.perf_counter()
    while True:
        act()
        times += 1
        if (took := time.perf_counter() - begin) > 0.02:
            return took / times * 1e3


@torch.inference_mode()
def measure(case: Case, spec: ModelSpec, dtype: torch.dtype, repeats: int) -> dict[str, float]:
    """Medians of every engine on one case, with what it computes and reads."""
    step = step_of(case)
    native = kernels().native
    assert native is not None, kernels().reason
    store = KVStore(spec, len(step.pages), PAGE, dtype, CPU)
    for tensor in store.keys + store.values:
        tensor.normal_()
    q = torch.randn(step.n_rows, spec.n_heads, spec.head_dim).to(dtype)
    compiled = NativeAttention(spec, store, native)
    gather, dense = sdpa(step, case, spec, store)
    tokens_read = compiled.prepare(step)
    ours = compiled.attend(0, q)
    gather()
    torch.testing.assert_close(ours, dense(q), atol=3e-2, rtol=2e-2)  # the same attention
    acts: dict[str, Callable[[], object]] = {
        "native": lambda: compiled.attend(0, q),
        "sdpa": lambda: dense(q),
        "gather": gather,
        "lay out": lambda: compiled.prepare(step),
    }
    taken: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(repeats):
        for name, act in acts.items():
            taken[name].append(milliseconds(act))
    figures = {name: statistics.median(times) for name, times in taken.items()}
    figures["spread"] = (max(taken["native"]) - min(taken["native"])) / figures["native"]
    figures["gflop"] = flops(case, spec) / 1e9
    figures["mb"] = tokens_read * 2 * spec.n_kv_heads * spec.head_dim * store.keys[0].element_size() / 1e6
    return figures


def ceilings(dtype: torch.dtype) -> tuple[float, float]:
    """GFLOP/s of a large matmul and GB/s of reading, on torch's threads."""
    a, x = torch.randn(2048, 2048).to(dtype), torch.randn(32_000_000)
    matmul = min(milliseconds(lambda: a @ a) for _ in range(7))
    read = min(milliseconds(x.sum) for _ in range(7))
    return 2 * 2.048**3 / matmul * 1e3, 0.128 / read * 1e3


def line(f: dict[str, float], rate: float, bandwidth: float) -> list[str]:
    """The cells of one case, and its floor added to its figures."""
    f["arithmetic"], f["bytes"] = f["gflop"] / rate * 1e3, f["mb"] / bandwidth
    f["floor"] = max(f["arithmetic"], f["bytes"])
    cells = [f"{f['native']:.3f}", f"{f['spread']:.0%}", f"{f['arithmetic']:.3f}", f"{f['bytes']:.3f}"]
    cells += [f"{f['floor'] / f['native']:.0%}", f"{f['gflop'] / f['native'] * 1e3:.0f}"]
    cells += [f"{f['mb'] / f['native']:.1f}", f"{f['sdpa']:.2f}", f"{f['gather']:.2f}"]
    cells += [f"{f['sdpa'] / f['native']:.1f}", f"{(f['sdpa'] + f['gather']) / f['native']:.1f}"]
    return [*cells, f"{f['lay out']:.3f}"]


def main() -> None:
    """Run all cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--shapes", default="0.6B")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    dtype = getattr(torch, asked.dtype)
    torch.set_num_threads(asked.threads)
    rate, bandwidth = ceilings(dtype)
    where = f"{asked.dtype}, {asked.threads} threads, {kernels().name}"
    print(f"{where}; matmul {rate:.0f} GFLOP/s, read {bandwidth:.1f} GB/s; times in ms\n")
    head = ("shape", "case", "ours", "spread", "arithmetic", "bytes", "of floor", "GFLOP/s", "GB/s", "sdpa", "gather")
    head += ("x sdpa", "x both", "lay out")
    print(f"| {' | '.join(head)} |\n|---|---|{'--:|' * (len(head) - 2)}")
    results = []
    for shape in asked.shapes.split(","):
        heads, kv_heads, dim = SHAPES[shape]
        spec = ModelSpec("qwen3", 97, 48, 1, heads, kv_heads, dim, 64, 1 << 20, 1e-6, 1e4)
        for case in (c for c in CASES if asked.only in c.name):
            figures = measure(case, spec, dtype, asked.repeats)
            print(f"| {shape} | {case.name} | {' | '.join(line(figures, rate, bandwidth))} |", flush=True)
            results.append({"shape": shape, "case": case.name, **figures})
    if asked.json:
        record = {"dtype": asked.dtype, "matmul_gflops": rate, "read_gbs": bandwidth, "cases": results}
        asked.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

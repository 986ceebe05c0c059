"""Milliseconds of one layer's attention on a GPU: the forest kernel against SDPA over gathered pages, and the floors.

    python bench/gpu_attention.py [--repeats 7] [--only decode] [--json FILE] [--small]

Cases are those of Hydragen (arXiv 2402.05099): 8 query heads over one KV head of 128, many rows behind one prefix;
decodes that share nothing; prompts. Every case is checked before it is timed. The kernel is timed with keys and values
stored, as in a step; engines take turns, figures are medians. "arithmetic" and "bytes" are the times of the
multiplications at the rate of a large matmul and of reading each shared run once at the bandwidth, both measured in the
same run. `--small` runs small cases once, without timing what it says, in Triton's interpreter too
(TRITON_INTERPRET=1): a check of the script.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from attention import PAGE, Case, flops, sdpa, step_of

from umbel.attention.triton import TritonAttention
from umbel.ir.spec import ModelSpec
from umbel.kv.store import KVStore

HYDRAGEN = ModelSpec("llama", 97, 48, 1, 8, 1, 128, 64, 1 << 20, 1e-6, 1e4)
LLAMA = ModelSpec("llama", 97, 48, 1, 32, 8, 128, 64, 1 << 20, 1e-6, 1e4)  # a layer of Llama-3.1-8B
PAIRS = ((512, 1024), (1024, 2048), (2048, 4096), (4096, 8192))
CASES = (
    *((HYDRAGEN, Case(f"decode, {rows} rows behind {shared}", rows, shared, 33)) for rows, shared in PAIRS),
    *((LLAMA, Case(f"decode, 1024 rows behind {k}K", 1024, k * 1024, 33)) for k in (1, 2, 4, 8, 16)),
    *((LLAMA, Case(f"decode, {rows} rows of {own}", rows, 0, own)) for rows in (64, 256) for own in (1024, 4096)),
    (LLAMA, Case("decode, 1 row of 16K", 1, 0, 16384)),
    *((LLAMA, Case(f"prefill, first {new}", 1, 0, new, new)) for new in (512, 2048, 8192)),
    (LLAMA, Case("prefill, 16 rows of 128 behind 2048", 16, 2048, 128, 128)),
)
SMALL = (
    (HYDRAGEN, Case("decode, 6 rows behind 300", 6, 300, 20)),
    (LLAMA, Case("prefill, first 40", 1, 0, 40, 40)),
)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def milliseconds(act: Callable[[], object]) -> float:
    """Of one call, by the GPU's clock, over as many as make 20 ms."""
    if DEVICE.type != "cuda":
        began = time.perf_counter()
        act()
        return (time.perf_counter() - began) * 1e3
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    times, taken = 1, 0.0
    while taken < 20:
        begin.record()
        for _ in range(times):
            act()
        end.record()
        end.synchronize()
        taken, ran, times = begin.elapsed_time(end), times, times * 4
    return taken / ran


@torch.inference_mode()
def measure(spec: ModelSpec, case: Case, dtype: torch.dtype, repeats: int) -> dict[str, float]:
    """Medians of every engine on one case, with what it computes and reads."""
    step = step_of(case)
    store = KVStore(spec, len(step.pages), PAGE, dtype, DEVICE)
    for tensor in store.keys + store.values:
        tensor.normal_()
    shapes = ((step.n_rows, n, spec.head_dim) for n in (spec.n_heads, spec.n_kv_heads, spec.n_kv_heads))
    q, k, v = (torch.randn(shape).to(DEVICE, dtype) for shape in shapes)
    ours = TritonAttention(spec, store, DEVICE)
    ours.prepare(step)
    acts: dict[str, Callable[[], object]] = {"ours": lambda: ours.forward(0, q, k, v)}
    figures = {"gflop": flops(case, spec) / 1e9}
    got = ours.forward(0, q, k, v)
    gathered = case.rows * (case.shared + case.own) * 2 * spec.n_kv_heads * spec.head_dim * dtype.itemsize
    if gathered < 30e9:  # what SDPA reads is a copy of every row's own
        gather, dense = sdpa(step, case, spec, store)
        gather()
        torch.testing.assert_close(got, dense(q), atol=3e-2, rtol=2e-2)  # the same attention
        acts["sdpa"] = lambda: dense(q)
    taken: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(repeats):
        for name, act in acts.items():
            taken[name].append(milliseconds(act))
    figures |= {name: statistics.median(times) for name, times in taken.items()}
    figures["spread"] = (max(taken["ours"]) - min(taken["ours"])) / figures["ours"]
    keys = int((step.end - step.start).sum())
    figures["mb"] = keys * 2 * spec.n_kv_heads * spec.head_dim * dtype.itemsize / 1e6
    return figures


def ceilings(dtype: torch.dtype, size: int) -> tuple[float, float]:
    """TFLOP/s of a large matmul and GB/s of reading."""
    a, x = torch.randn(size, size).to(DEVICE, dtype), torch.randn(size * size).to(DEVICE)
    matmul = min(milliseconds(lambda: a @ a) for _ in range(5))
    read = min(milliseconds(x.sum) for _ in range(5))
    return 2 * size**3 / matmul / 1e9, 4 * size * size / read / 1e6


def main() -> None:
    """Run all cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    dtype = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
    rate, bandwidth = ceilings(dtype, 256 if asked.small else 8192)
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "no GPU: Triton's interpreter"
    print(f"{name}, {dtype}; matmul {rate:.0f} TFLOP/s, read {bandwidth:.0f} GB/s; times in ms\n")
    print("| case | ours | spread | arithmetic | bytes | of floor | sdpa | x sdpa |\n|---|" + "--:|" * 7)
    results = []
    for spec, case in (c for c in (SMALL if asked.small else CASES) if asked.only in c[1].name):
        f = measure(spec, case, dtype, 1 if asked.small else asked.repeats)
        f["arithmetic"], f["bytes"] = f["gflop"] / rate, f["mb"] / bandwidth
        floor, other = max(f["arithmetic"], f["bytes"]), f.get("sdpa", float("nan"))
        cells = f"{f['ours']:.3f} | {f['spread']:.0%} | {f['arithmetic']:.3f} | {f['bytes']:.3f}"
        print(
            f"| {case.name} | {cells} | {floor / f['ours']:.0%} | {other:.3f} | {other / f['ours']:.1f} |", flush=True
        )
        results.append({"case": case.name, "heads": spec.n_heads, "kv_heads": spec.n_kv_heads, **f})
    if asked.json:
        record = {"device": name, "matmul_tflops": rate, "read_gbs": bandwidth, "cases": results}
        asked.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

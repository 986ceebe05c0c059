"""What the cost model expects of an H200 by its data sheet, for each figure that it can say anything of; no GPU needed.

    python -m bench.gpu.predict [--out bench/gpu/predicted.json] [--rows 6400] [--again]

Steps are priced by `umbel.cost`. Whole jobs run on a virtual clock: Umbel's production scheduler with its plan, and the
same scheduler with vLLM's rules (prefix caching by blocks, the least recently used given up first, chunked prefill,
1,024 requests and 16,384 tokens a step, every row reading its whole context), both on the same prices. So a predicted
ratio says what order, sharing and packing bring, and nothing of how fast anyone's kernels or loops are.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.gpu.points import APART, GRID, MODEL, POOL, ROWS, Point
from umbel.config import EngineConfig
from umbel.cost.cards import named
from umbel.cost.load import Load
from umbel.cost.roofline import CEILING, Price
from umbel.cost.shape import Shape
from umbel.sim.case import SimCase
from umbel.sim.policies.named import setup
from umbel.sim.shapes import SHAPES
from umbel.sim.simulate import Run

KEPT = Path(__file__).with_name("predicted.json")
PEER = {"vllm": "fcfs-lru", "vllm, sorted": "sorted-lru"}  # whose rules stand for vLLM, shuffled and sorted
PEER_ROWS, PEER_TOKENS = 1024, 16384  # running requests and tokens of a step: vLLM's own choice for such a GPU
PREFIXES = (1024, 2048, 4096, 8192, 16384)
Jobs = dict[str, float]  # "point, pool, engine" -> seconds


def price() -> Price:
    """The price of the model in bfloat16 on the data sheet."""
    spec = SHAPES[MODEL]
    return Price(Shape.of(spec, "bfloat16"), named("h200"), "bfloat16", spec.n_layers)


def overhead() -> float:
    """Seconds of a step however small it is."""
    return named("h200").step_overhead + SHAPES[MODEL].n_layers * named("h200").layer_overhead


def prefill_load(tokens: int) -> Load:
    """One step over the whole of one prompt."""
    return Load.one(tokens, 1, tokens * (tokens + 1) / 2, 0)


def decode_load(rows: int, shared: int, own: int) -> Load:
    """One step of `rows` rows behind `shared` common tokens; each has `own` of its own, the new one among them."""
    return Load.one(rows, rows, rows * (shared + own), shared + rows * (own - 1))


def shares(load: Load) -> dict[str, float]:
    """Seconds of a step as expected, and its arithmetic and its traffic at the ceilings as shares of them."""
    by, machine = price(), named("h200")
    seconds = float(by.each(load)[0])
    arithmetic = float(by.flops(load)[0]) / machine.flops("bfloat16")
    return {
        "seconds": seconds,
        "arithmetic": arithmetic / seconds,
        "bytes": float(by.n_bytes(load)[0]) / machine.memory_rate / seconds,
        "floor": float(by.each(load, CEILING)[0]),
    }


def steps() -> dict[str, dict[str, float]]:
    """Predictions for single steps."""
    found = {
        "prefill": shares(prefill_load(8192)),
        "decode": shares(decode_load(256, 0, 1024)),
    }
    return found | {f"shared {prefix}": shares(decode_load(1024, prefix, 64)) for prefix in PREFIXES}


def job_names(points: Sequence[Point]) -> Iterator[tuple[str, Point, int | None, str]]:
    """(name, point, pool, engine) of each job to simulate."""
    for point in points:
        for pool in (None, POOL):
            for engine in ("umbel", *PEER):
                yield f"{point.name}, {'whole' if pool is None else 'capped'}, {engine}", point, pool, engine


def simulate(case: SimCase, engine: str) -> float:
    """Seconds on the virtual clock."""
    if engine == "umbel":
        return Run.of(case, "umbel").outcome().seconds
    made = setup(case, PEER[engine])
    plan = replace(made.plan, chunk=PEER_TOKENS)
    made = replace(made, plan=plan, policy=replace(made.policy, max_running=PEER_ROWS))
    return Run.of(case, PEER[engine], made).outcome().seconds


def simulate_missing(jobs: Jobs, rows: int, kept: Path, points: Sequence[Point]) -> None:
    """Run what is not kept yet, and keep each as it comes."""
    for name, point, pool, engine in job_names(points):
        if name in jobs:
            continue
        case = SimCase(point.workload(rows), SHAPES[MODEL], named("h200"), EngineConfig(MODEL, kv_tokens=pool))
        jobs[name] = round(simulate(case, engine), 2)
        print(f"{name}: {jobs[name]:,.2f} s", flush=True)
        kept.write_text(json.dumps({"rows": rows, "seconds": jobs}, indent=1) + "\n", encoding="utf-8")


def ratio(jobs: Mapping[str, float], point: Point, pool: str, *, is_sorted: bool = False) -> float:
    """How many times as long vLLM's rules take; NaN where it is not known."""
    peer = jobs.get(f"{point.name}, {pool}, vllm{', sorted' if is_sorted else ''}", math.nan)
    return peer / jobs.get(f"{point.name}, {pool}, umbel", math.nan)


def geometric(ratios: Sequence[float]) -> float:
    """Geometric mean; NaN of nothing, and where one is missing."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


def kept_jobs(path: Path = KEPT) -> dict[str, Any]:
    """What was simulated: `rows` of each job, `seconds` by name."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": ROWS, "seconds": {}}


def main() -> None:
    """Simulate what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=KEPT)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--again", action="store_true", help="forget what is kept")
    asked = parser.parse_args()
    kept = kept_jobs(asked.out)
    same = kept["rows"] == asked.rows and not asked.again
    simulate_missing(dict(kept["seconds"]) if same else {}, asked.rows, asked.out, (*GRID, *APART))


if __name__ == "__main__":
    main()

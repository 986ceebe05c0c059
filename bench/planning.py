"""Seconds and memory of planning tokenised rows: three-level sharing at growing sizes, and shapes that break slow code.

    python bench/planning.py [--rows 10000 100000 1000000] [--mode forest] [--shapes] [--passes] [--upkeep] [--json OUT]

Each measurement is a process of its own, and its peak is what the kernel saw (ru_maxrss), interpreter and libraries
included; they alone are measured too. Rows are 256 tokens: 32 that a tenth of all rows share, 64 of a thousandth
of them, 64 that ten rows share, 96 of their own. The goal is 60 s and 6 bytes a token + 400 bytes a row for 1,000,000
rows on two cores. `--passes` prints the seconds of every pass; `--upkeep` the microseconds that a shared
run costs the scheduler, which plan/forest/price.py has as constants.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from umbel.attention.layout import lay_out
from umbel.cache.pages import PagePool
from umbel.config import EngineConfig
from umbel.cost.cards import named
from umbel.ir.forest import Forest
from umbel.ir.params import SamplingParams
from umbel.ir.sampled import Outcomes, SampledTokens
from umbel.ir.spec import ModelSpec
from umbel.ir.step import StepResult
from umbel.ir.workload import Workload
from umbel.plan import planner
from umbel.plan.draft import PlanDraft
from umbel.plan.forest.price import Costs
from umbel.plan.forest.regroup import regroup
from umbel.plan.forest.rules import best_groups, paper_groups, paying_forks
from umbel.plan.passes.prefix import build_forest
from umbel.sched.lot import Lot
from umbel.sched.scheduler import Scheduler

LENGTH = 256
PARTS = ((32, 10), (64, 1_000), (64, 100_000), (96, None))  # tokens, and how many different ones in a million rows
SPEC = ModelSpec("llama", 128_256, 4096, 32, 32, 8, 128, 14336, 131072, 1e-5, 5e5, dtype="bfloat16")  # Llama-3.1-8B


def three_levels(n: int, distinct_lengths: bool = False) -> Workload:
    """Rows in shuffled order, so that those who share lie apart."""
    rows = np.random.default_rng(0).permutation(n)
    tokens = np.empty((n, LENGTH), np.int32)
    at = 0
    for part, (width, kinds) in enumerate(PARTS):
        kind = rows if kinds is None else rows * kinds // 1_000_000 if kinds * n >= 1_000_000 else rows * 0
        for column in range(at, at + width):  # a column at a time: no second array of the whole size
            tokens[:, column] = (kind * 7919 + column * 31 + part) % 100_003
        at += width
    each = [SamplingParams(temperature=0.0, max_tokens=m) for m in ((16, 64, 200) if distinct_lengths else (64,))]
    params = [each[i % len(each)] for i in range(n)]
    return Workload(tokens.reshape(-1), np.arange(n + 1, dtype=np.int64) * LENGTH, params, np.arange(n))


def of_rows(rows: np.ndarray) -> Workload:
    """A workload of equally long rows."""
    n, width = rows.shape
    params = [SamplingParams(temperature=0.0, max_tokens=16)] * n
    return Workload(np.ascontiguousarray(rows, np.int32).reshape(-1), np.arange(n + 1) * width, params, np.arange(n))


def identical(n: int) -> Workload:
    """One prompt, again and again."""
    return of_rows(np.tile(np.arange(64), (n, 1)))


def children(n: int) -> Workload:
    """One shared run that every row leaves for itself."""
    rows = np.zeros((n, 64), np.int32)
    rows[:, 32:] = (np.arange(n)[:, None] * 7919 + np.arange(32) * 31) % 100_003
    rows[:, 32] = np.arange(n)
    return of_rows(rows)


def unrelated(n: int) -> Workload:
    """Rows of random tokens, which agree by chance."""
    return of_rows(np.random.default_rng(1).integers(0, 128_000, (n, 64)))


def chain(n: int) -> Workload:
    """Row i is a prefix of row i + 1: tokens grow with the square of the rows, so keep it to a few thousand."""
    lengths = np.arange(1, n + 1)
    tokens = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    params = [SamplingParams(temperature=0.0, max_tokens=16)] * n
    return Workload(tokens.astype(np.int32), np.concatenate(([0], np.cumsum(lengths))), params, np.arange(n))


SHAPES: dict[str, tuple[Callable[[int], Workload], int]] = {
    "identical": (identical, 100_000),
    "children": (children, 100_000),
    "unrelated": (unrelated, 100_000),
    "chain": (chain, 3_000),
    "uneven lengths": (lambda n: three_levels(n, distinct_lengths=True), 100_000),
}


def plan_once(workload: Workload, mode: str, passes: bool) -> dict[str, object]:
    """Plan and measure; with `passes`, the seconds of each."""
    spent: dict[str, float] = {}
    if passes:
        timed = {name: _timed(name, run, spent) for name, run in planner.PASSES.items()}
        planner.PASSES = timed  # type: ignore[misc,assignment]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    wall, cpu = time.perf_counter(), time.process_time()
    plan = planner.make_plan(workload, SPEC, EngineConfig("bench", prefix=mode), named("h200"))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rows, tokens = len(workload), len(workload.tokens)
    return {
        "rows": rows,
        "tokens": tokens,
        "nodes": plan.forest.n_nodes,
        "computed": plan.estimates.computed_prompt_tokens,
        "order": plan.decision("order").value,
        "seconds": round(wall, 2),
        "cpu_seconds": round(cpu, 2),
        "before_planning": before,
        "peak": peak,
        "allowed": 6 * tokens + 400 * rows,
        "beyond_tokens_per_row": round((peak - 4 * tokens) / rows, 1),
        **({"passes": {k: round(v, 2) for k, v in spent.items()}} if passes else {}),
    }


def _timed(name: str, run: planner.Pass, spent: dict[str, float]) -> planner.Pass:
    def timed(draft: PlanDraft) -> PlanDraft:
        begin = time.perf_counter()
        done = run(draft)
        spent[name] = time.perf_counter() - begin
        return done

    return timed


def upkeep() -> dict[str, float]:
    """Seconds that a shared node adds to scheduling (no model): taken and given back, per step, per reader."""
    apart, pairs = (
        [[5 * 10**5 + (i // 2 if p else i)] + [3] * 15 + [i] + [7] * 15 for i in range(512)] for p in (0, 1)
    )
    own = [[10**5 + i] + [7] * 15 for i in range(3000)]
    heads = [[token for level in range(depth) for token in [level] * 16] for depth in (1, 9)]
    spurs = [[*heads[1][: 16 * level], 999] for level in range(1, 9)]  # keep the levels apart
    flat, deep = ([head + row for row in own] + spurs for head in heads)
    once = (_drive(pairs, 2) - _drive(apart, 2)) / 256
    steps = (_drive(pairs, 128) - _drive(apart, 128)) / 256
    return {
        "once": once,
        "per_step": (steps - once) / 126,
        "per_reader": (_drive(deep, 1) - _drive(flat, 1)) / (8 * len(own)),
    }


def _drive(prompts: list[list[int]], output: int) -> float:
    """Processor seconds of scheduling and laying out all steps; the best of five runs."""
    workload = Workload.of(prompts, SamplingParams(temperature=0.0, max_tokens=output))
    forest, n, best = build_forest(workload), len(prompts), math.inf
    for _ in range(5):
        scheduler = Scheduler(PagePool(10**5, 16), 4096)
        scheduler.add(Lot(workload, forest, [()] * n, np.full(n, output)))
        begin = time.process_time()
        while (step := scheduler.next()) is not None:
            lay_out(step, 3)
            draws = len(step.sampling)
            result = StepResult(np.zeros(draws, np.int64), np.zeros(draws, bool))
            sampled = SampledTokens(scheduler.advance(), result)
            scheduler.settle(sampled, Outcomes.of(sampled))
            slots = sampled.drawing.slots
            for slot in slots[scheduler.seqs.n_out[slots] == output].tolist():
                scheduler.finish(slot)
        best = min(best, time.process_time() - begin)
    return best


def deep_forest(n: int) -> dict[str, object]:
    """All rules on a chain of `n` nodes, whose prompts would be too many tokens to write down."""
    at = np.arange(n)
    forest = Forest(at - 1, at, at + 1, at, np.full(n, n), n - at, at, at)
    ones = np.ones(n)
    wall = time.perf_counter()
    chosen = [best_groups(forest), paper_groups(forest), paying_forks(forest, Costs(ones, ones * 2.5, ones, ones))]
    tokens = [regroup(forest, grouping).n_tokens for grouping in chosen]
    return {"nodes": n, "seconds": round(time.perf_counter() - wall, 2), "computed": tokens}


def child(case: str, rows: int, mode: str, passes: bool) -> dict[str, object]:
    """One measurement in a fresh process."""
    command = [sys.executable, __file__, "--child", case, "--rows", str(rows), "--mode", mode]
    done = subprocess.run([*command, *(["--passes"] if passes else [])], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def measure(case: str, rows: int, mode: str, passes: bool) -> dict[str, object]:
    """What a child does."""
    if case == "nothing":
        return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if case == "upkeep":
        return {name: round(seconds * 1e6, 2) for name, seconds in upkeep().items()}
    if case == "deep forest":
        return deep_forest(rows)
    make = three_levels if case == "three levels" else SHAPES[case][0]
    return plan_once(make(rows), mode, passes)


def main() -> None:
    """Print one line a case, and write them all to --json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--mode", default="forest")
    parser.add_argument("--shapes", action="store_true")
    parser.add_argument("--passes", action="store_true")
    parser.add_argument("--upkeep", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.rows[0], options.mode, options.passes)))
        return
    cases = [("nothing", 1), *(("three levels", n) for n in options.rows)]
    if options.shapes:
        cases += [*((name, n) for name, (_, n) in SHAPES.items()), ("deep forest", 100_000)]
    if options.upkeep:
        cases.append(("upkeep", 1))
    results = []
    for case, rows in cases:
        found = {"case": case, "load": round(os.getloadavg()[0], 1), **child(case, rows, options.mode, options.passes)}
        results.append(found)
        print(json.dumps(found), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

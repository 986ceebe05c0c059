"""Simulates clusters that run our plan: how they scale, and what slow nodes, losses and skewed roots cost.

    python -m bench.cluster_sim [--only scaling,trouble,dealing] [--store FILE] [--out docs/simulated.md]
                                [--picture docs/cluster.svg]

Scaling is simulated step by step, the others by prices of rows (`sim/cluster/`). Answers have 20 to 180 tokens, which
the plan does not know beforehand. All three parts together take about ten minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.curve import curve
from bench.pages import write
from umbel.config import EngineConfig
from umbel.cost.cards import named
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.sim.case import SimCase
from umbel.sim.cluster.nodes import Node
from umbel.sim.cluster.run import plan_cluster, run_cluster
from umbel.sim.shapes import SHAPES
from umbel.sim.synthetic import rectangular

MARKS = "<!-- bench/cluster_sim.py: begin -->", "<!-- bench/cluster_sim.py: end -->"
MODEL, CARD, KV_TOKENS = "llama-3.1-8b", "h200", 820_000
SHORTEST, LONGEST, LIMIT = 20, 180, 200  # tokens of answers, and the most that rows ask for
STEPPED = 3_200  # rows of the largest scaling that is run step by step
Results = dict[str, dict[str, Any]]
Tokens = NDArray[np.int32]


def prompts(rows: int, prefix: int, own: int, heavy: float, seed: int = 0) -> Tokens:
    """Rows in groups of 16 with a prefix of their own, shuffled; the share `heavy` of them begins with one root that is
    half of that prefix."""
    rng = np.random.default_rng(seed)
    row = rng.permutation(rows)
    group = row // 16
    shared = rng.integers(1, 30_000, (rows // 16 + 1, prefix), np.int32)
    shared[:, 0] = shared[:, prefix // 2] = np.arange(len(shared))
    shared[: int(len(shared) * heavy), : prefix // 2] = 7
    tokens = np.empty((rows, prefix + own), np.int32)
    np.take(shared, group, axis=0, out=tokens[:, :prefix])
    tokens[:, prefix:] = 3
    tokens[:, prefix] = row % 16
    return tokens


def case_of(rows: int, prefix: int, own: int, heavy: float = 0.0) -> SimCase:
    """A case of such rows."""
    lengths = np.random.default_rng(1).integers(SHORTEST, LONGEST + 1, rows)
    workload: Workload = rectangular(prompts(rows, prefix, own, heavy), SamplingParams(max_tokens=LIMIT))
    config = EngineConfig(MODEL, kv_tokens=KV_TOKENS)
    return SimCase(workload, SHAPES[MODEL], named(CARD), config, lengths)


def scaling(results: Results, keep: Callable[[], None]) -> None:
    """3,200 rows step by step, and 25,600 by prices of rows, on 1 to 64 replicas."""
    for rows, heavy in ((3_200, 0.0), (3_200, 0.9), (25_600, 0.0)):
        case, one = case_of(rows, 1000, 100, heavy), None
        for replicas in (1, 8, 64, 2, 4, 16, 32):
            name = f"scaling | {rows} | {heavy} | {replicas}"
            if name not in results:
                found = run_cluster(case, [Node()] * replicas, stepped=rows <= STEPPED, one_node_seconds=one)
                results[name] = found.as_dict()
                print(name, found.seconds, found.least_seconds, file=sys.stderr, flush=True)
                keep()
            one = results[name]["one_node_seconds"]


def troubles(seconds: float) -> Iterator[tuple[str, list[Node]]]:
    """What may happen to 4, 8 or 64 nodes; eight of them would have `seconds` to run."""
    yield "1 node", [Node()]
    for replicas in (8, 64):
        time_each = seconds * 8 / replicas
        yield f"{replicas} nodes", [Node()] * replicas
        slow = [Node(1 / 3 if i % 4 == 3 else 1.0) for i in range(replicas)]
        yield f"{replicas}, every fourth at a third of the speed", slow
        lost = [Node(goes=time_each * (0.2 + 0.1 * i)) if i < replicas // 4 else Node() for i in range(replicas)]
        yield f"{replicas}, a quarter lost one after the other", lost
        late = [Node(comes=time_each / 2) if i >= replicas // 2 else Node() for i in range(replicas)]
        yield f"{replicas}, half of them late", late
    yield "4, one at a third of the speed", [Node(), Node(), Node(), Node(1 / 3)]


def trouble(results: Results, keep: Callable[[], None]) -> None:
    """100,000 rows, nine of ten of them below one root, on clusters where something happens."""
    for heavy in (0.9,):
        case, each = case_of(100_000, 200, 40, heavy), 1.0
        for what, _ in troubles(1.0):
            name = f"trouble | {heavy} | {what}"
            nodes = dict(troubles(each))[what]
            if name not in results:
                results[name] = run_cluster(case, nodes, stepped=False).as_dict()
                print(name, results[name]["seconds"], results[name]["least_seconds"], file=sys.stderr, flush=True)
                keep()
            each = results[name]["one_node_seconds"] / 8


def dealing(results: Results, keep: Callable[[], None]) -> None:
    """Seconds to plan so many rows and to deal them to 64 replicas, and to simulate how they are run."""
    for rows in (100_000, 200_000, 500_000, 1_000_000):
        name = f"dealing | {rows}"
        if name in results:
            continue
        case = case_of(rows, 48, 16)
        clock = [time.process_time()]
        plan = case.plan
        clock.append(time.process_time())
        shared = plan_cluster(case, 64)
        clock.append(time.process_time())
        found = run_cluster(case, [Node()] * 64, stepped=False)
        clock.append(time.process_time())
        planned, dealt, ran = np.diff(clock).tolist()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        results[name] = found.as_dict() | {"planned": planned, "dealt": dealt, "ran": ran - dealt, "memory": peak}
        assert len(shared.shares) == 64 and plan.forest.n_nodes
        print(name, planned, dealt, ran, file=sys.stderr, flush=True)
        keep()


def picked(results: Results, kind: str) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """The results of one kind, with what distinguishes them; fewer replicas first, where that is all."""
    names = [name.split(" | ") for name in results]
    found = [name for name in names if name[0] == kind]
    if kind == "scaling":
        found.sort(key=lambda name: (int(name[1]), float(name[2]), int(name[3])))
    for name in found:
        yield name[1:], results[" | ".join(name)]


def above(found: dict[str, Any]) -> str:
    """How far the end is above what the speeds allow."""
    return f"{max(found['seconds'] / found['least_seconds'] - 1, 0):.1%}"


def again(found: dict[str, Any]) -> str:
    """The share of distinct prompt tokens that was computed more than once."""
    return f"{found['computed_prompt_tokens'] / found['distinct_prompt_tokens'] - 1:.1%}"


def report(results: Results) -> str:
    """The tables."""
    lines = ["### One machine to 64\n", "| rows | below one root | replicas | seconds | times as fast as one | idle |"]
    lines[-1] += " prompt tokens computed again |"
    lines.append("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for (rows, heavy, replicas), f in picked(results, "scaling"):
        one = results[f"scaling | {rows} | {heavy} | 1"]["seconds"]
        cells = f"{f['seconds']:,.1f} | {one / f['seconds']:.2f} | {f['idle']:.1%} | {again(f)}"
        lines.append(f"| {int(rows):,} | {float(heavy):.0%} | {replicas} | {cells} |")
    lines += [
        "\n### Slow nodes, losses, late ones\n",
        "| below one root | nodes | answered | seconds | above the bound |",
    ]
    lines[-1] += " idle | lots | stolen | prompt tokens computed again |"
    lines.append("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for (heavy, what), f in picked(results, "trouble"):
        cells = f"{f['answered']:,} | {f['seconds']:,.1f} | {above(f)} | {f['idle']:.1%}"
        cells += f" | {f['lots']:,} | {f['stolen_lots']:,} | {again(f)}"
        lines.append(f"| {float(heavy):.0%} | {what} | {cells} |")
    lines += [
        "\n### Planning and dealing to 64 replicas\n",
        "| rows | plan | deal | simulate the run | peak of memory |",
    ]
    lines.append("| ---: | ---: | ---: | ---: | ---: |")
    for (rows,), f in picked(results, "dealing"):
        seconds = " | ".join(f"{f[part]:,.1f} s" for part in ("planned", "dealt", "ran"))
        lines.append(f"| {int(rows):,} | {seconds} | {f['memory'] / 2**30:.1f} GiB |")
    return "\n".join(lines)


def picture(results: Results) -> str:
    """Times as fast as one replica, over replicas."""
    series: dict[str, list[tuple[float, float]]] = {}
    for (rows, heavy, replicas), f in picked(results, "scaling"):
        name = f"{int(rows):,} rows" + (", 90 % below one root" if float(heavy) else "")
        name += ", priced by row" if int(rows) > STEPPED else ""
        one = results[f"scaling | {rows} | {heavy} | 1"]["seconds"]
        series.setdefault(name, []).append((float(replicas), one / f["seconds"]))
    title = f"Simulated: {MODEL} on {CARD}, 1,100-token prompts in groups of 16, answers of 20 to 180 tokens"
    return curve(series, title, "replicas", "times as fast as one")


PARTS = {"scaling": scaling, "trouble": trouble, "dealing": dealing}


def main() -> None:
    """Simulate what is missing, and print or write the tables and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    parser.add_argument("--store", type=Path, help="JSON file that keeps results; those in it are not simulated again")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    results: Results = json.loads(asked.store.read_text()) if asked.store and asked.store.exists() else {}

    def keep() -> None:
        if asked.store:
            asked.store.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    for part in asked.only.split(","):
        PARTS[part](results, keep)
    if asked.picture:
        asked.picture.write_text(picture(results), encoding="utf-8")
    if asked.out:
        write(asked.out, MARKS, report(results))
    else:
        print(report(results))


if __name__ == "__main__":
    main()

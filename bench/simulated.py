"""Simulates shared-prefix batches under five policies and with parts of ours switched off: a table in Markdown.

    python bench/simulated.py [--rows 6400] [--kv-tokens 400000] [--machine a100] [--model llama-3.1-8b]
                              [--shapes 2000/200,16000/200] [--degrees 2,4,16] [--out docs/simulated.md]

The workloads are those of BatchLLM (2412.03594, section 6): prompts of prefix + remainder tokens, `degree` rows a
prefix, shuffled, 100 output tokens. The production scheduler runs them on a virtual clock; nothing is computed. All
rows, shapes and degrees take about an hour of one core; results in --store are not simulated again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from umbel.config import EngineConfig
from umbel.cost.cards import named
from umbel.sim.case import SimCase
from umbel.sim.policies.named import ABLATIONS
from umbel.sim.shapes import SHAPES
from umbel.sim.simulate import simulate
from umbel.sim.synthetic import Synthetic

Results = dict[str, dict[str, Any]]  # "shape x degree policy" -> outcome

POLICIES = ("fcfs-lru", "sorted-lru", "longest-prefix", "batchllm", "umbel")
MARK = "<!-- tables of bench/simulated.py -->"
SHAPES_OF_PAPER = "2000/200,2000/1000,1000/1000,16000/200"


def cases(asked: argparse.Namespace) -> Iterator[tuple[str, int, Synthetic]]:
    """(shape, degree, workload) of every row of the table."""
    for shape in asked.shapes.split(","):
        prefix, remainder = map(int, shape.split("/"))
        for degree in map(int, asked.degrees.split(",")):
            yield shape, degree, Synthetic(prefix, remainder, degree, asked.rows, asked.output, seed=0)


def key(shape: str, degree: int, policy: str) -> str:
    """How a result is stored."""
    return f"{shape} x {degree} {policy}"


def simulate_all(asked: argparse.Namespace, results: Results, store: Path | None) -> None:
    """Fill in what is missing, storing each result as it comes."""
    names = asked.policies.split(",") if asked.policies else [*POLICIES, *ABLATIONS]
    for shape, degree, synthetic in cases(asked):
        missing = [name for name in names if key(shape, degree, name) not in results]
        if not missing:
            continue
        config = EngineConfig(asked.model, kv_tokens=asked.kv_tokens)
        case = SimCase(synthetic.workload(), SHAPES[asked.model], named(asked.machine), config)
        for name in missing:
            begin = time.perf_counter()
            found = simulate(case, name).as_dict() | {"wall": round(time.perf_counter() - begin, 1)}
            results[key(shape, degree, name)] = found
            print(f"{shape} x {degree} {name}: {found}", file=sys.stderr, flush=True)
            if store is not None:
                store.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def bound(s: Synthetic) -> float:
    """The saving of computing every prefix once."""
    once = -(-s.rows // s.degree) * s.prefix + s.rows * s.remainder
    return 1 - once / (s.rows * (s.prefix + s.remainder))


def table(asked: argparse.Namespace, results: Results, names: Sequence[str], show: Any) -> Iterator[str]:
    """One Markdown table: a row per workload, a column per policy."""
    yield f"| prefix/remainder | degree | {' | '.join(names)} |"
    yield f"| --- | ---: |{' ---: |' * len(names)}"
    for shape, degree, synthetic in cases(asked):
        found = [results.get(key(shape, degree, name)) for name in names]
        cells = ["not run" if each is None else show(each, synthetic) for each in found]
        yield f"| {shape} | {degree} | {' | '.join(cells)} |"


def report(asked: argparse.Namespace, results: Results) -> str:
    """All tables."""
    ours = ["umbel", *ABLATIONS]

    def saving(r: dict[str, Any], s: Synthetic) -> str:
        return f"{r['saving']:.1%}"

    def rate(r: dict[str, Any], s: Synthetic) -> str:
        return f"{r['rows_per_second']:.2f}"

    def memory(r: dict[str, Any], s: Synthetic) -> str:
        return f"{r['kv_mean_tokens'] / r['kv_tokens']:.0%}, {r['preemptions']:,}, {r['recomputed_tokens']:,}"

    def limit(r: dict[str, Any], s: Synthetic) -> str:
        return f"{bound(s):.1%}"

    saved = list(table(asked, results, list(POLICIES), saving))
    limits = list(table(asked, results, ["umbel"], limit))
    saved = [line + (" bound |", " ---: |")[i] if i < 2 else line for i, line in enumerate(saved)]
    saved[2:] = [f"{line} {limits[i + 2].rsplit('|', 2)[1].strip()} |" for i, line in enumerate(saved[2:])]
    parts = [
        "### Prompt tokens saved\n\nTokens that a cache lost and computed again count as computed. The bound is every\n"
        "prefix computed once.",
        "\n".join(saved),
        "### Rows per second, predicted",
        "\n".join(table(asked, results, list(POLICIES), rate)),
        "### Ours with parts switched off: saving",
        "\n".join(table(asked, results, ours, saving)),
        "### Ours with parts switched off: rows per second, predicted",
        "\n".join(table(asked, results, ours, rate)),
        "### Ours with parts switched off: mean use of the pool, preemptions, tokens computed again",
        "\n".join(table(asked, results, ours, memory)),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Simulate what is missing and print or store the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=6400)
    parser.add_argument("--output", type=int, default=100)
    parser.add_argument("--kv-tokens", type=int, default=400_000)
    parser.add_argument("--machine", default="a100")
    parser.add_argument("--model", default="llama-3.1-8b", choices=sorted(SHAPES))
    parser.add_argument("--shapes", default=SHAPES_OF_PAPER)
    parser.add_argument("--degrees", default="2,4,16")
    parser.add_argument("--policies", help="only these, into --store, without a table")
    parser.add_argument("--store", type=Path, help="JSON file that keeps results; those in it are not simulated again")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    results: Results = json.loads(asked.store.read_text()) if asked.store and asked.store.exists() else {}
    simulate_all(asked, results, asked.store)
    if asked.policies:
        return
    text = report(asked, results)
    if asked.out:
        write(asked.out, text)
    else:
        print(text)


def write(path: Path, text: str) -> None:
    """Put the tables where they were; what a page says before `MARK` stays."""
    before = path.read_text(encoding="utf-8").split(MARK)[0] if path.exists() else ""
    path.write_text(f"{before}{MARK}\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()

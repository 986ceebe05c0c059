"""Plans real sharing (traces, few-shot tasks) and simulates what each policy saves of it at three sizes of KV pool.

    python -m bench.sharing DATA [--only NAME,..] [--rows 200] [--store FILE] [--out docs/simulated.md]

DATA is a folder with traces/ (Mooncake, a multi-turn chat trace in blocks of 16 tokens, agent traces as differences),
tasks/ (gsm8k, bbh, mmlu) and tokenizers/gpt2; what is absent is left out, by name. Blocks that a trace names by a hash
become made-up tokens, equal where the hashes are; all else is counted in GPT-2 tokens. Answers are as long as recorded
(traces) or as the reference answer (gsm8k); 128 tokens for bbh, 1 for mmlu. No text is kept.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import ByteLevelBPETokenizer

from bench.pages import write
from umbel.config import EngineConfig
from umbel.cost.cards import named
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.sim.case import SimCase
from umbel.sim.policies.blendserve import Demand
from umbel.sim.policies.named import POLICIES
from umbel.sim.shapes import SHAPES
from umbel.sim.simulate import simulate
from umbel.sim.traces import read_trace

MARKS = "<!-- bench/sharing.py: begin -->", "<!-- bench/sharing.py: end -->"
GPU_POOLS = (400_000, 820_000, 3_000_000)  # an 8B model on an A100, on an H200, on four H200s
SHARES = (0.1, 0.3, 1.0)  # of all that a small job could hold, where every GPU's pool would hold everything
LEAST = (2, 3, 4)  # times its longest row, so that it can run at all

Lengths = NDArray[np.int64]
Found = tuple[Workload, Lengths]


@dataclass(frozen=True)
class Data:
    """The folder, and its tokenizer when it is needed."""

    root: Path
    rows: int

    @cached_property
    def tokenizer(self) -> ByteLevelBPETokenizer:
        """GPT-2's."""
        folder = self.root / "tokenizers" / "gpt2"
        return ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text."""
        return [e.ids for e in self.tokenizer.encode_batch(texts)]

    def read(self, name: str) -> list[dict[str, Any]]:
        """All objects of a compressed JSON-lines file."""
        with gzip.open(self.root / name, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    def workload(self, prompts: list[str], lengths: list[int]) -> Found:
        """Prompts whose answers have these lengths; each may be as long as the longest."""
        params = SamplingParams(temperature=0.0, max_tokens=max(lengths))
        return Workload.of(self.encode(prompts), params), np.array(lengths, np.int64)


def trace(data: Data, name: str, kind: str) -> Found:
    """A trace, its first rows."""
    found = read_trace(data.root / "traces" / f"{name}.jsonl.gz", kind, LONGEST, data, data.rows)
    return found.workload, found.lengths


def gsm8k(data: Data) -> Found:
    """Questions behind eight worked ones."""
    shots = "".join(
        f"Question: {row['question']}\nAnswer: {row['answer']}\n\n"
        for row in data.read("tasks/gsm8k_train.jsonl.gz")[:8]
    )
    rows = data.read("tasks/gsm8k_test.jsonl.gz")
    answers = data.encode([str(row["answer"]) for row in rows])
    return data.workload([f"{shots}Question: {row['question']}\nAnswer:" for row in rows], [len(a) for a in answers])


def bbh(data: Data) -> Found:
    """Questions behind the three worked ones of their task."""
    heads = {row["task"]: row["cot_prompt"] for row in data.read("tasks/bbh_cot_prompts.jsonl.gz")}
    rows = data.read("tasks/bbh.jsonl.gz")
    prompts = [f"{heads[row['task']]}\n\nQ: {row['input']}\nA: Let's think step by step." for row in rows]
    return data.workload(prompts, [128] * len(rows))


def mmlu(data: Data) -> Found:
    """Questions behind the first five of their subject."""
    by_subject: dict[str, list[str]] = {}
    shots: dict[str, str] = {}
    for row in data.read("tasks/mmlu_test.jsonl.gz"):
        options = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True))
        question = f"{row['question']}\n{options}\nAnswer:"
        asked = by_subject.setdefault(row["subject"], [])
        if len(asked) < 5:
            shots[row["subject"]] = shots.get(row["subject"], "") + f"{question} {'ABCD'[row['answer']]}\n\n"
        asked.append(question)
    prompts = [
        f"The following are questions about {subject.replace('_', ' ')}.\n\n{shots[subject]}{question}"
        for subject, asked in by_subject.items()
        for question in asked[5:]
    ]
    return data.workload(prompts, [1] * len(prompts))


def shuffled(make: Callable[[Data], Found], data: Data) -> Found:
    """The same rows in random order, as a file may have them."""
    workload, lengths = make(data)
    turn = list(range(len(workload)))
    random.Random(0).shuffle(turn)
    prompts = [workload.prompt(row).tolist() for row in turn]
    return Workload.of(prompts, workload.params[0]), lengths[turn]


LONGEST = SHAPES["llama-3.1-8b"].max_positions
SETS: dict[str, tuple[Callable[[Data], Found], tuple[int, ...] | None]] = {
    "mooncake conversation": (partial(trace, name="mooncake_conversation", kind="mooncake"), GPU_POOLS),
    "mooncake synthetic": (partial(trace, name="mooncake_synthetic", kind="mooncake"), GPU_POOLS),
    "sharegpt multi-turn": (partial(trace, name="sharegpt_multiturn_blocks16", kind="blocks16"), None),
    "agent miniswe": (partial(trace, name="agent_miniswe", kind="agent"), None),
    "agent taubench": (partial(trace, name="agent_taubench", kind="agent"), None),
    "agent magagent": (partial(trace, name="agent_magagent", kind="agent"), None),
    "gsm8k 8-shot": (gsm8k, None),
    "bbh 3-shot by task": (bbh, None),
    "bbh 3-shot shuffled": (partial(shuffled, bbh), None),
    "mmlu 5-shot by subject": (mmlu, None),
    "mmlu 5-shot shuffled": (partial(shuffled, mmlu), None),
}


def pools(workload: Workload, lengths: Lengths, sizes: tuple[int, ...] | None) -> list[int]:
    """The sizes of KV pool to try: given ones, or shares of all that the job could hold, room for its longest row."""
    longest = int((np.diff(workload.offsets) + workload.params[0].max_tokens).max()) + 64
    if sizes is not None:
        return list(sizes)
    case = SimCase(workload, SHAPES["llama-3.1-8b"], named("a100"), EngineConfig("x", kv_tokens=1 << 30), lengths)
    whole = case.forest.n_tokens + int(lengths.sum())
    return [max(int(share * whole) // 16 * 16, least * longest) for share, least in zip(SHARES, LEAST, strict=True)]


def simulate_all(data: Data, only: list[str], policies: list[str], store: Path | None) -> dict[str, Any]:
    """Outcomes by set, pool and policy; those in `store` are not simulated again."""
    results: dict[str, Any] = json.loads(store.read_text()) if store and store.exists() else {}
    for name in only:
        make, sizes = SETS[name]
        try:
            workload, lengths = make(data)
        except (OSError, UsageError) as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
            continue
        for kv_tokens in pools(workload, lengths, sizes):
            spec, config = SHAPES["llama-3.1-8b"], EngineConfig("llama-3.1-8b", kv_tokens=kv_tokens)
            case = SimCase(workload, spec, named("a100"), config, lengths)
            for policy in policies:
                where = f"{name} | {kv_tokens} | {policy}"
                if where in results:
                    continue
                begin = time.perf_counter()
                results[where] = simulate(case, policy).as_dict() | {"wall": round(time.perf_counter() - begin, 1)}
                results[where]["bound"] = bounds_of(case)
                print(where, results[where], file=sys.stderr, flush=True)
                if store:
                    store.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


def bounds_of(case: SimCase) -> dict[str, float]:
    """The saving when every distinct token is computed once, and the seconds that BlendServe aims at."""
    distinct = case.forest.n_tokens / len(case.workload.tokens)
    return {"saving": 1 - distinct, "seconds": Demand.of(case).bound}


def table(results: dict[str, Any], show: Callable[[dict[str, Any]], str], most: str) -> Iterator[str]:
    """A row per set and pool, a column per policy, and behind them what no policy can pass by (`most`)."""
    yield f"| rows of | rows | prompt tokens | KV pool | {' | '.join(POLICIES)} | {most} |"
    yield "| --- | ---: | ---: | ---: |" + " ---: |" * (len(POLICIES) + 1)
    places = dict.fromkeys(tuple(where.split(" | ")[:2]) for where in results)
    for name, kv_tokens in places:
        found = [results[f"{name} | {kv_tokens} | {policy}"] for policy in POLICIES]
        cells = [show(r) + (f" ({r['failed_rows']} too long)" if r["failed_rows"] else "") for r in found]
        first = found[0]
        counts = f"{first['rows']:,} | {first['prompt_tokens']:,} | {int(kv_tokens):,}"
        yield f"| {name} | {counts} | {' | '.join(cells)} | {show(first['bound'])} |"


def report(results: dict[str, Any]) -> str:
    """Both tables."""
    saved = table(results, lambda r: f"{r['saving']:.1%}", "all sharing")
    seconds = table(results, lambda r: f"{r['seconds']:,.1f}", "BlendServe's bound")
    return "\n".join(["### Prompt tokens saved\n", *saved, "\n### Seconds, predicted\n", *seconds])


def main() -> None:
    """Simulate what is missing and print or store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", help="names of sets, by commas", default=",".join(SETS))
    parser.add_argument("--rows", type=int, default=200, help="rows of a trace, at most")
    parser.add_argument("--policies", help="only these, into --store, without a table")
    parser.add_argument("--store", type=Path, help="JSON file that keeps results")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    names = asked.policies.split(",") if asked.policies else list(POLICIES)
    results = simulate_all(Data(asked.data, asked.rows), asked.only.split(","), names, asked.store)
    if asked.policies:
        return
    if asked.out:
        write(asked.out, MARKS, report(results))
    else:
        print(report(results))


if __name__ == "__main__":
    main()

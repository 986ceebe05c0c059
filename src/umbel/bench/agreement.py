"""How far engines give the same tokens: against transformers, one request at a time, and against each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umbel.bench.engines import ORACLE, Contestant
from umbel.bench.fleet import BenchSetup, Say, launch, load, run
from umbel.bench.workloads import Row, write_rows

CHECK_TOKENS = 40_000  # prompt tokens of a workload that the oracle reads at most: float32 takes its time

Answers = Mapping[int, Sequence[int]]  # greedy tokens by row


@dataclass(frozen=True, slots=True)
class Truth:
    """The oracle's answers to some rows, and by how much each token's logit leads the next one's."""

    answers: Answers
    margins: Mapping[int, Sequence[float]]


def sample(rows: Sequence[Row], count: int) -> list[int]:
    """Greedy rows spread evenly over all: `count` of them or as many as there are; of long ones fewer, but two."""
    greedy = [i for i, row in enumerate(rows) if row.temperature == 0]
    longest = max((len(rows[i].prompt) for i in greedy), default=1)
    count = min(count, len(greedy), max(2, CHECK_TOKENS // longest))
    return [greedy[i * len(greedy) // count] for i in range(count)]


def ask_oracle(
    cases: Mapping[str, Sequence[Row]], count: int, python: str, setup: BenchSetup, say: Say
) -> dict[str, Truth]:
    """The oracle's answers to `count` rows of each workload. Raises EngineError."""
    engine = Contestant("oracle", "oracle", ORACLE, ORACLE.settings)
    process = launch("oracle", ORACLE, python, setup)
    found = {}
    try:
        load(process, engine, setup)
        for name, rows in cases.items():
            chosen = sample(rows, count)
            if not chosen:
                continue
            path, out = setup.folder / "oracle-rows.jsonl", setup.folder / "oracle-answers.jsonl"
            write_rows(path, [rows[i] for i in chosen])
            answer = run(process, path, out, is_sorted=False, timeout=setup.timeout)
            tokens = read_answers(out)
            found[name] = Truth(
                {i: tokens[k] for k, i in enumerate(chosen)},
                dict(zip(chosen, answer["margins"], strict=True)),
            )
            say(f"oracle   {name:<10} {len(chosen)} rows {answer['seconds']:8.2f} s")
    finally:
        process.stop()
    return found


def read_answers(path: Path) -> dict[int, list[int]]:
    """The first sample of each row."""
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return {record["id"]: record["samples"][0] for record in records}


def against_truth(answers: Answers, truth: Truth) -> dict[str, Any]:
    """How an engine's answers compare with the oracle's: rows compared, those equal in their first token and in all,
    and the largest lead of an oracle's token at a first difference (small ones are rounding: two tokens all but
    tied)."""
    leads = [lead for row in truth.answers if (lead := _lead_lost(answers[row], row, truth)) is not None]
    counts = _counts(answers, truth.answers)
    return {**counts, "largest_lead_lost": max(leads, default=None)}


def _lead_lost(got: Sequence[int], row: int, truth: Truth) -> float | None:
    pairs = zip(got, truth.answers[row], truth.margins[row], strict=True)
    return next((margin for mine, theirs, margin in pairs if mine != theirs), None)


def against_each_other(answers: Mapping[str, Answers]) -> dict[str, dict[str, Any]]:
    """For each pair of engines, named "a = b", over the rows they both have."""
    names = list(answers)
    return {f"{a} = {b}": _counts(answers[a], answers[b]) for i, a in enumerate(names) for b in names[i + 1 :]}


def _counts(a: Answers, b: Answers) -> dict[str, int]:
    rows = sorted(a.keys() & b.keys())
    return {
        "rows": len(rows),
        "first_equal": sum(a[row][0] == b[row][0] for row in rows),
        "all_equal": sum(list(a[row]) == list(b[row]) for row in rows),
    }

"""Medians, spreads and ratios of a record's measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import median
from typing import Any

from umbel.bench.record import Record

OURS = "umbel"  # ratios are against it, or against the first engine where it did not run
SLOW = 0.85  # of the best calibrated rate: below it, a measurement fell into a slow period of the machine


@dataclass(frozen=True, slots=True)
class Spread:
    """The spread of repeated measurements."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(median(values), min(values), max(values), len(values))

    def __str__(self) -> str:
        if self.count == 1:
            return f"{self.median:.2f} (1)"
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True)
class ResultLine:
    """The result of one engine on one workload.

    `floor_share`: share of the arithmetic floor that it reaches (1: as fast as the machine's best matmul rate allows).
    `slower`: how many times longer than ours it takes, per round, so that both were measured close to each other.
    `slow_runs`: how many of its runs fell into slow periods.
    """

    case: str
    engine: str
    seconds: Spread
    output_rate: float
    total_rate: float
    floor_share: float
    slower: Spread | None
    slow_runs: int


def reference(record: Record) -> str | None:
    """The engine that ratios are relative to."""
    names = list(dict.fromkeys(m["engine"] for m in [*record.measurements, *record.whole]))
    return OURS if OURS in names else next(iter(names), None)


def lines(record: Record) -> list[ResultLine]:
    """The results, one for each engine and workload that were measured, in the order of the record."""
    cases = {case["name"]: case for case in record.cases}
    ours = reference(record)
    flops, _ = record.best
    slow = slow_measurements(record)
    found = []
    for (case, engine), runs in grouped(record.measurements).items():
        facts, spread = cases[case], Spread.of([run["seconds"] for run in runs])
        out = facts["output_tokens"] / spread.median
        total = (facts["output_tokens"] + facts["prompt_tokens"]) / spread.median
        share = facts["flops"] / flops / spread.median
        slower = ratios(record.measurements, case, engine, ours)
        count = sum(_place(run) in slow for run in runs)
        found.append(ResultLine(case, engine, spread, out, total, share, slower, count))
    return found


def grouped(runs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Runs by workload and engine."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        found.setdefault((run["case"], run["engine"]), []).append(run)
    return found


def ratios(runs: Sequence[Mapping[str, Any]], case: str, engine: str, ours: str | None) -> Spread | None:
    """Seconds of an engine over ours, round by round; None when they share no round."""
    by = {(run["engine"], run["round"]): run["seconds"] for run in runs if run["case"] == case}
    rounds = [number for name, number in by if name == engine and (ours, number) in by]
    found = [by[engine, number] / by[str(ours), number] for number in rounds]
    return Spread.of(found) if found else None


def geometric(found: Sequence[ResultLine]) -> dict[str, tuple[float, int]]:
    """For each engine the geometric mean of its median ratios, and the number of workloads."""
    by: dict[str, list[float]] = {}
    for line in found:
        if line.slower is not None:
            by.setdefault(line.engine, []).append(line.slower.median)
    return {engine: (exp(sum(map(log, values)) / len(values)), len(values)) for engine, values in by.items()}


def lost(found: Sequence[ResultLine]) -> list[ResultLine]:
    """The results in which an engine that is not ours was faster."""
    others = [line for line in found if line.slower is not None and not line.engine.startswith(OURS)]
    return [line for line in others if line.slower is not None and line.slower.median < 1]


def slow_measurements(record: Record) -> set[tuple[int, str, str]]:
    """(round, workload, engine) of those with a slow calibration before or after them."""
    rates = [c["matmul"] for c in record.calibrations]
    if not rates:
        return set()
    slow = [rate < SLOW * max(rates) for rate in rates]
    near = {_place(m): slow[max(0, m["calibration"]) : m["calibration"] + 2] for m in record.measurements}
    return {place for place, found in near.items() if any(found)}


def _place(run: Mapping[str, Any]) -> tuple[int, str, str]:
    return run["round"], run["case"], run["engine"]

"""Every figure that is asked of a GPU: what, what the cost model expects, and what a run has reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.gpu.points import APART, GRID, LONG, Point
from bench.gpu.predict import PREFIXES, Jobs, geometric, ratio, steps

Parts = Mapping[str, Any]  # of a run's record
Reached = tuple[str, bool]  # in words, and whether it is what was asked

VLLM = "vLLM: prefix caching, chunked prefill, CUDA graphs, 1,024 requests, 16,384 tokens a step"
NO_KERNELS = "no prediction: the cost model knows no kernels"
MODEL, KERNELS, CHECKS = ("python -m bench.gpu --only " + part for part in ("model", "kernels", "checks"))


@dataclass(frozen=True, slots=True)
class Figure:
    """`predict` gives the cost model's expectation in words, `reach` what a run has (None: it has not)."""

    name: str
    asked: str
    against: str
    command: str
    predict: Callable[[Jobs], str]
    reach: Callable[[Parts], Reached | None]


def figures() -> tuple[Figure, ...]:
    """All of them, in the order of the page."""
    return (*_grid_figures(), *_step_figures(), *_kernel_figures(), *_check_figures())


def _grid_figures() -> Iterator[Figure]:
    command = "python -m bench.gpu --only grid --arms {}"
    for order, pool, least in (("shuffled", "whole", 1.5), ("shuffled", "capped", 2.0), ("sorted", "whole", 1.2)):
        size = "whole pool" if pool == "whole" else "pool of 0.40 M tokens"
        yield Figure(
            f"BatchLLM's grid, {order} rows, {size}: geometric mean of vLLM's seconds over Umbel's",
            f">= {least:g}x", VLLM, command.format(f"{order}/{pool}"),
            _predicted_mean(pool, is_sorted=order == "sorted"), _reached_mean(f"{order}/{pool}", least),
        )  # fmt: skip
    yield Figure(
        "16000/200 at degree 16, shuffled, pool of 0.40 M tokens", ">= 5x", VLLM,
        f"{command.format('shuffled/capped')} --points 16000/200x16", _predicted_range((LONG,), "capped"),
        _reached_least([LONG.name], "shuffled/capped", 5.0),
    )  # fmt: skip
    yield Figure(
        "work without sharing (1,000 or 200 own tokens)", ">= 0.95x", VLLM,
        f"{command.format('shuffled/whole')} --points 0/1000x1,0/200x1", _predicted_range(APART, "whole"),
        _reached_least([p.name for p in APART], "shuffled/whole", 0.95),
    )  # fmt: skip


def _step_figures() -> Iterator[Figure]:
    shares = steps()
    behind = [shares[f"shared {prefix}"]["arithmetic"] for prefix in PREFIXES]
    yield Figure(
        "prefill of 8,192 tokens, share of the measured bf16 matmul rate", ">= 60 %", "products of 8192 x 8192", MODEL,
        lambda _: f"{shares['prefill']['arithmetic']:.0%}", _reached_share("prefill", "share of matmul rate", 0.6),
    )  # fmt: skip
    yield Figure(
        "decode of 256 rows of 1,024 without sharing, share of the measured bandwidth", ">= 70 %",
        "the better of copying and reading", MODEL, lambda _: f"{shares['decode']['bytes']:.0%}",
        _reached_share("decode", "share of bandwidth", 0.7),
    )  # fmt: skip
    yield Figure(
        "decode of 1,024 rows behind 1K to 16K, share of the arithmetic floor, at every point", ">= 55 %",
        "products of 8192 x 8192", MODEL, lambda _: f"{min(behind):.0%} to {max(behind):.0%}",
        _reached_share("shared", "share of matmul rate", 0.55),
    )  # fmt: skip
    yield Figure(
        "warm start of 8B parameters, weights in the page cache, to the first token", "< 15 s", "-", MODEL,
        lambda _: "no prediction: the cost model knows no discs", _reached_start,
    )  # fmt: skip


def _kernel_figures() -> Iterator[Figure]:
    flash = ("FlashAttention", "vLLM's FlashAttention", "torch flash SDPA")
    for name, kind, least, peers in (
        ("plain paged decode, 256 rows of 1K to 16K", "plain paged decode", 0.9, flash),
        ("cascade on two levels", "two levels", 1.0, ("FlashInfer cascade",)),
        ("cascade on three levels", "three levels", 1.3, ("FlashInfer cascade",)),
    ):
        yield Figure(
            f"forest kernel alone, {name}: the peer's time over ours, at every point", f">= {least:g}x",
            "FlashAttention, or torch's flash kernel" if peers == flash else "FlashInfer's cascade", KERNELS,
            lambda _: NO_KERNELS, _reached_kernel(kind, peers, least),
        )  # fmt: skip


def _check_figures() -> Iterator[Figure]:
    for name, asked, begin in (
        ("greedy tokens in float32", "equal", "greedy tokens"),
        ("best token in bfloat16", ">= 99.5 %", "best token in bfloat16"),
        ("two runs of a job", "equal to the bit", "two runs equal"),
    ):
        against = (
            "transformers, and a plain decoder" if begin == "greedy tokens" else "float32" if "best" in begin else "-"
        )
        yield Figure(name, asked, against, CHECKS, lambda _: "-", _reached_checks(begin))


def _predicted_mean(pool: str, *, is_sorted: bool) -> Callable[[Jobs], str]:
    def predict(jobs: Jobs) -> str:
        each = [ratio(jobs, point, pool, is_sorted=is_sorted) for point in GRID]
        return f"{geometric(each):.2f}x ({min(each):.2f} to {max(each):.2f})"

    return predict


def _predicted_range(points: Sequence[Point], pool: str) -> Callable[[Jobs], str]:
    def predict(jobs: Jobs) -> str:
        return " and ".join(f"{ratio(jobs, point, pool):.2f}x" for point in points)

    return predict


def rows_of(parts: Parts, part: str, table: str) -> list[dict[str, Any]]:
    """The rows of a table, which a run may lack."""
    found: list[dict[str, Any]] = parts.get(part, {}).get("tables", {}).get(table, [])
    return found


def _reached_mean(arm: str, least: float) -> Callable[[Parts], Reached | None]:
    def reach(parts: Parts) -> Reached | None:
        names = {point.name for point in GRID}
        rows = [r for r in rows_of(parts, "grid", "vLLM / Umbel") if r["arm"] == arm and r["point"] in names]
        ratios = {row["point"]: row["ratio"] for row in rows}
        if not ratios:
            return None
        mean, counts = geometric(list(ratios.values())), sorted({row["rows"] for row in rows})
        text = f"{mean:.2f}x ({len(ratios)} of {len(GRID)} workloads, {counts[0]:,} to {counts[-1]:,} rows)"
        return text, len(ratios) == len(GRID) and mean >= least

    return reach


def _reached_least(names: Sequence[str], arm: str, least: float) -> Callable[[Parts], Reached | None]:
    def reach(parts: Parts) -> Reached | None:
        found = [r for r in rows_of(parts, "grid", "vLLM / Umbel") if r["point"] in names and r["arm"] == arm]
        if not found:
            return None
        each = ", ".join(f"{r['ratio']:.2f}x ({r['rows']:,} rows)" for r in found)
        return each, len(found) == len(names) and min(r["ratio"] for r in found) >= least

    return reach


def _reached_share(kind: str, column: str, least: float) -> Callable[[Parts], Reached | None]:
    def reach(parts: Parts) -> Reached | None:
        shares = [row[column] for row in rows_of(parts, "model", "Steps") if row["kind"] == kind]
        return (f"{min(shares):.0%} to {max(shares):.0%}", min(shares) >= least) if shares else None

    return reach


def _reached_start(parts: Parts) -> Reached | None:
    seconds = [row["whole process s"] for row in rows_of(parts, "model", "Warm start")]
    return (f"{seconds[-1]:.1f} s", seconds[-1] < 15) if seconds else None


def _reached_kernel(kind: str, peers: Sequence[str], least: float) -> Callable[[Parts], Reached | None]:
    """Against the first of `peers` that was there."""

    def reach(parts: Parts) -> Reached | None:
        rows = [row for row in rows_of(parts, "kernels", "Attention of one layer") if row["kind"] == kind]
        for peer in peers:
            found = [row[f"x {peer}"] for row in rows if isinstance(row[f"x {peer}"], float)]
            if found:
                return f"{min(found):.2f}x to {max(found):.2f}x ({peer}, {len(found)} cases)", min(found) >= least
        return None

    return reach


def _reached_checks(begin: str) -> Callable[[Parts], Reached | None]:
    def reach(parts: Parts) -> Reached | None:
        checks = [c for c in parts.get("checks", {}).get("checks", []) if c["name"].startswith(begin)]
        passed = sum(check["passed"] for check in checks)
        only = f": {checks[0]['detail']}" if len(checks) == 1 else ""
        return (f"{passed} of {len(checks)} checks passed{only}", passed == len(checks)) if checks else None

    return reach

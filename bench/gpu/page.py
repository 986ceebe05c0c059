"""Writes what is asked of a GPU, what is expected and what is reached into a page: no GPU needed.

    python -m bench.gpu.page [--from DIR/result.json ...] [--page docs/benchmarks.md]

Of several results the last one that has a figure counts; the workloads of the grid may come from several.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.gpu.asked import Figure, figures, rows_of
from bench.gpu.findings import table
from bench.gpu.points import APART, GRID
from bench.gpu.predict import PEER, Jobs, kept_jobs, overhead, steps

BEGIN, END = "<!-- gpu: begin -->", "<!-- gpu: end -->"
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
NOT_YET = "not measured yet: no GPU was available"


def page(records: Sequence[Mapping[str, Any]], jobs: Jobs, rows: int) -> str:
    """The section between the marks."""
    parts = ["### Asked, expected, reached", "\n".join(table([_line(f, records, jobs) for f in figures()]))]
    assumed = _STEPS.format(overhead=overhead() * 1e3)
    parts += ["### Expected of single steps", assumed, "\n".join(table(list(_steps())))]
    parts += [f"### Expected seconds of whole jobs, {rows:,} rows", _JOBS, "\n".join(table(list(_jobs(jobs))))]
    for record in records:
        parts += list(_measured(record))
    return "\n\n".join(parts)


_STEPS = """By `umbel.cost` from the data sheet (989 TFLOP/s, 4.8 TB/s), at the 60 % of it that an ordinary step
reaches, and with {overhead:.1f} ms for each step's launches, an estimate; shares are of the data sheet. A measured rate
is lower than the sheet's, so that shares of it are higher."""
_JOBS = """On a virtual clock at those prices (`python -m bench.gpu.predict`): Umbel's scheduler with its plan, and the
same scheduler with vLLM's rules, rows shuffled and sorted (1,024 requests, 16,384 tokens a step, prefix caching by
blocks, every row reading its whole context). What this predicts of a ratio is what order, sharing and packing bring,
nothing of how fast anyone's kernels and loops are."""


def _line(figure: Figure, records: Sequence[Mapping[str, Any]], jobs: Jobs) -> dict[str, str]:
    every = [*(record["parts"] for record in records), _one_grid(records)]
    found = [reached for parts in every if (reached := figure.reach(parts)) is not None]
    text, enough = found[-1] if found else (NOT_YET, True)
    return {
        "figure": figure.name, "asked": figure.asked, "expected": figure.predict(jobs),
        "reached": text if enough else f"**{text}: not reached**",
        "against": figure.against, "command": f"`{figure.command}`",
    }  # fmt: skip


def _one_grid(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The ratios of all runs as those of one: the grid is longer than a call."""
    rows = [row for record in records for row in rows_of(record["parts"], "grid", "vLLM / Umbel")]
    return {"grid": {"tables": {"vLLM / Umbel": rows}}}


def _steps() -> Iterator[dict[str, str]]:
    names = {"prefill": "prompt of 8,192 tokens", "decode": "256 rows of 1,024 decode"}
    for name, found in steps().items():
        shown = names.get(name, f"1,024 rows decode behind {name.removeprefix('shared ')} shared tokens and 64 own")
        cells = {"ms": f"{found['seconds'] * 1e3:.1f}", "floor ms": f"{found['floor'] * 1e3:.1f}"}
        yield {"step": shown, **cells, "arithmetic": f"{found['arithmetic']:.0%}", "bytes": f"{found['bytes']:.0%}"}


def _jobs(jobs: Jobs) -> Iterator[dict[str, str]]:
    for point in (*GRID, *APART):
        line = {"prefix/own x degree": point.name}
        for pool in ("whole", "capped"):
            for engine in ("umbel", *PEER):
                line[f"{pool}: {engine}"] = f"{jobs[f'{point.name}, {pool}, {engine}']:.0f}"
        yield line


def _measured(record: Mapping[str, Any]) -> Iterator[str]:
    """Everything that a run has."""
    about = record["about"]
    yield f"### Measured: {about['device']}, {about['date']}\n\n`{about['command']}`; {about['versions']}."
    for name, part in record["parts"].items():
        for title, rows in part["tables"].items():
            yield f"**{name}: {title}**\n\n" + "\n".join(table(rows))
        if part["notes"]:
            yield "\n".join(f"- {note}" for note in part["notes"])


def read_results(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Records of real runs; raises ValueError for one of --small, whose figures mean nothing."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    for path, record in zip(paths, records, strict=True):
        if record["about"]["device"].startswith("no GPU"):
            raise ValueError(f"{path} is of a check of the script without a GPU: its figures mean nothing")
    return records


def write_between(path: Path, text: str) -> None:
    """Put `text` between the marks of a page; raises ValueError when it has none."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="results", type=Path, action="append", default=[])
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args()
    kept = kept_jobs()
    try:
        write_between(asked.page, page(read_results(asked.results), kept["seconds"], kept["rows"]))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

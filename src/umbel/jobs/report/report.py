"""The report of a job, its figures beside those of its plans: read from the store beside the output, however the job
ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umbel.config import readable
from umbel.jobs.execution import ABOUT, NOTES
from umbel.jobs.read.records import note_texts
from umbel.jobs.report.lengths import stretches
from umbel.jobs.report.replicas import replicas_of
from umbel.jobs.report.sums import DONE_SUMS, LINE_SUMS, fold
from umbel.jobs.spent import SPENT
from umbel.jobs.status import how_it_stands, open_reader

COMPARED = ("seconds", "steps", "computed_prompt_tokens", "output_tokens", "kv_peak_tokens")
COUNTED = (
    "preemptions",
    "evicted_rows",
    "recomputed_tokens",
    "starved_seconds",
    "drafted_tokens",
    "accepted_tokens",
    "forced_tokens",
    "adapter_loads",
    "keys_read",
    "keys_whole",
    "layers_passed",
    "layers_whole",
    "left_out_tokens",
    "read_prompt_tokens",
    "copied_prompt_tokens",
)
MAX_RUNS = 40  # of the tree of a report; the others are summed up

Sums = dict[str, Any]


def read_report(output: Path) -> Sums:
    """The report of the job that writes `output`: keys as in docs, all of JSON's kinds.

    A job that runs is reported on as of its last commit. Raises UsageError when there is no store beside the output.
    """
    store = open_reader(output)
    try:
        records = {name: store.get(name) for name in ("plan", "live", NOTES, ABOUT, SPENT)}
        totals, status = store.totals(), how_it_stands(store)
    finally:
        store.close()
    sums = fold(records["plan"], records["live"])
    rows = {"stored": totals.rows, "answered": totals.rows - totals.failed, "failed": totals.failed, "cut": totals.cut}
    return {
        "output": readable(output),
        "status": status,
        "about": dict(records[ABOUT] or {}),
        "rows": {**rows, "planned": round(sums["planned"]["rows"]) if sums else 0},
        "errors": dict(totals.errors),
        "spent": dict(records[SPENT] or {}),
        **report_of(sums, records[NOTES]),
    }


def report_of(sums: Mapping[str, Any], noted: Mapping[str, int] | None = None) -> Sums:
    """The figures of a report from the sums that `fold` gives; all of it empty when nothing was planned.

    `exact` and `lossy` are those of the plans, `notes` theirs and then those of reading (`noted`, ReadNotes.noted).
    """
    notes = list(dict.fromkeys([*sums.get("notes", ()), *note_texts(noted or {})]))
    if not sums:
        empty = {"figures": {}, "counts": {}, "tree": [], "curve": {}, "course": [], "lengths": [], "reasons": {}}
        empty["replicas"] = []
        return {"exact": True, "lossy": [], "notes": notes, "parts": 0, "cut_short": 0, **empty}
    actual = sums["actual"]
    return {
        "exact": sums["exact"],
        "lossy": sums["lossy"],
        "notes": notes,
        "parts": sums["parts"],
        "cut_short": sums["cut_short"],
        "figures": {name: _figure(sums, name) for name in COMPARED},
        "counts": {name: actual[name] for name in COUNTED if name in actual},
        "seconds_range": [sums["due"]["seconds_low"], sums["due"]["seconds_high"]],
        "tree": pruned(sums["lines"]),
        "lengths": stretches(sums["lengths"]),
        "replicas": replicas_of(sums.get("shares", ()), sums.get("tallies", ())),
        **{name: sums[name] for name in ("curve", "course", "reasons", "chunk", "kv_tokens", "decisions", "refusals")},
    }


def error_percent(actual: float, due: float) -> float | None:
    """How much more than expected, in percent of the expected figure; None when that was 0."""
    return 100 * (actual / due - 1) if due else None


def _figure(sums: Mapping[str, Any], name: str) -> Sums:
    planned, due, actual = (sums[part][name] for part in ("planned", "due", "actual"))
    return {"planned": planned, "due": due, "actual": actual, "error_percent": error_percent(actual, due)}


def pruned(lines: list[Sums]) -> list[Sums]:
    """The tree with the runs that save most, with errors; the other lines are summed up, one line of kind "rest" below
    each run."""
    runs = sorted((i for i, v in enumerate(lines) if v["kind"] == "run"), key=lambda i: -lines[i]["saved_tokens"])
    keep = set(runs[:MAX_RUNS])
    for i in runs[:MAX_RUNS]:
        keep |= set(_above(lines, i))
    kept = _Kept([], {-1: -1}, {}, {})
    for i, line in enumerate(lines):
        if line["parent"] in kept.summed_up:
            kept.add_tokens(i, line)
        elif line["kind"] == "run" and i not in keep:
            kept.sum_up(i, line)
        else:
            kept.take(i, line)
    return [{**line, "error_percent": error_percent(line["output"], line["expected"])} for line in kept.lines]


def _above(lines: list[Sums], i: int) -> Iterator[int]:
    while (i := lines[i]["parent"]) >= 0:
        yield i


@dataclass(frozen=True, slots=True)
class _Kept:
    """The lines of a pruned tree so far: the new place of each old line, which lines sum up others, and which old lines
    are in them."""

    lines: list[Sums]
    became: dict[int, int]
    rest: dict[int, int]
    summed_up: dict[int, int]

    def take(self, i: int, line: Mapping[str, Any]) -> None:
        """Keep a line; there is one "rest" below a run."""
        parent = self.became[line["parent"]]
        if line["kind"] in ("own", "rest"):
            if parent in self.rest:
                self.sum_up(i, line)
                return
            self.rest[parent] = len(self.lines)
        self.became[i] = len(self.lines)
        self.lines.append({**line, "parent": parent})

    def sum_up(self, i: int, line: Mapping[str, Any]) -> None:
        """Add a line, with all rows below it, to the rest of its parent."""
        parent = self.became[line["parent"]]
        at = self.rest.setdefault(parent, len(self.lines))
        if at == len(self.lines):
            nothing = dict.fromkeys((*LINE_SUMS, *DONE_SUMS), 0)
            self.lines.append({"kind": "rest", "text": "", "parent": parent, "end": 0, **nothing})
        self.lines[at]["kind"] = "rest"
        for name in (*LINE_SUMS, *DONE_SUMS):
            self.lines[at][name] += line[name]
        self.summed_up[i] = at

    def add_tokens(self, i: int, line: Mapping[str, Any]) -> None:
        """Add a line below one that was summed up: its own tokens count, its rows are counted already."""
        at = self.summed_up[i] = self.summed_up[line["parent"]]
        for name in ("tokens", "saved_tokens", "saved_seconds"):
            self.lines[at][name] += line[name]

"""Prints a report as databases print EXPLAIN ANALYZE: the tree of the plan with actual beside expected figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any

from umbel.jobs.report.replicas import replica_lines
from umbel.jobs.spent import price_text
from umbel.plan.explain.text import WIDTH, branch, count, duration, entry, exactness, note_lines, tree_lines

Record = Mapping[str, Any]

OUTCOMES: Mapping[str, str] = {
    "complete": "complete",
    "drained": "stopped on request, to be resumed",
    "budget": "stopped by its budget, to be resumed",
    "running": "running",
    "killed": "killed or broken off, to be resumed",
}
_FIGURES: Mapping[str, str] = {
    "seconds": "time",
    "steps": "steps",
    "computed_prompt_tokens": "prompt tokens",
    "output_tokens": "output tokens",
    "kv_peak_tokens": "kv peak",
}
_ERROR = 12  # columns of the error of prediction
_COUNTS: Mapping[str, str] = {
    "preemptions": "preemptions",
    "evicted_rows": "rows preempted",
    "recomputed_tokens": "tokens computed again",
}


def report_text(report: Record, width: int = WIDTH) -> str:
    """The report as text, at most about a hundred lines whatever the job; ends with a newline. Lines of more than
    `width` characters go on below; one of 60 is enough."""
    lines = [*_head(report, width), *note_lines(report["notes"], width)]
    if report["parts"]:
        lines += [*_parts(report, width), *_figures(report, width), *_spent(report, width), *_counts(report, width)]
        lines += replica_lines(report["replicas"], width)
        lines += [_forest(report), *tree_lines(report["tree"], _branch, width)]
    lines += [f"  {n:,} x {code}" for code, n in report["errors"].items()]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def brief_text(report: Record, width: int = WIDTH) -> str:
    """The report in about a dozen lines: without the tree and counts of nothing, and with one note at most."""
    lines = [*_head(report, width), *(f"  {n:,} x {code}" for code, n in report["errors"].items())]
    if report["parts"]:
        counts = {name: value for name, value in report["counts"].items() if value}
        lines += [*_figures(report, width), *_spent(report, width), *_counts({**report, "counts": counts}, width)]
        lines += replica_lines(report["replicas"], width)
    lines += note_lines(report["notes"], width, 1)
    if report["tree"]:
        more = f"the forest with what its rows wrote, {count(len(report['tree']), 'line')}: -v shows it"
        lines += entry("more", more, width)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _head(report: Record, width: int) -> Iterator[str]:
    yield from wrap(f"REPORT  {report['output']}: {status_text(report['status'])}", width, break_long_words=False)
    yield from entry("rows", _rows(report), width)
    if report["parts"]:
        yield from entry("answers", exactness(report["lossy"]), width)
    else:
        yield "  nothing was planned: no row reached the engine"


def verdict(figures: Record) -> str:
    """A line on how near the plan came, for the part that was done; `figures` as in a report, nothing when no step
    ran."""
    if not figures or not figures["steps"]["actual"]:
        return ""
    said = {"seconds": "", "output_tokens": " tokens generated", "kv_peak_tokens": " tokens of KV"}
    parts = [
        f"{_value(name, figures[name]['actual'])}{label} ({percent(figures[name]['error_percent'])})"
        for name, label in said.items()
    ]
    return f"against the plan: {', '.join(parts)}"


def status_text(status: str) -> str:
    """How a job ended, in words."""
    return OUTCOMES.get(status, status)


def percent(error: float | None) -> str:
    """An error of prediction: +5 % is more than expected, "-" where nothing was expected."""
    if error is None:
        return "-"
    if error == 0:
        return "exact"
    return f"{error:+.0f} %" if abs(error) >= 9.5 else f"{error:+.1f} %"


def _rows(report: Record) -> str:
    rows = report["rows"]
    text = f"{count(rows['stored'], 'row')} done, {rows['answered']:,} answered, {rows['failed']:,} failed"
    left = rows["planned"] - sum(line["done"] for line in report["tree"] if line["parent"] == -1)
    text += f", {left:,} planned but not run" if left > 0 else ""
    return f"{text}; {rows['cut']:,} ended by length"


def _parts(report: Record, width: int) -> Iterator[str]:
    if report["parts"] > 1:
        cut = report["cut_short"]
        text = f"{report['parts']} windows or runs, {cut} of them cut short; their plans are added up"
        yield from entry("parts", text, width)


def _figures(report: Record, width: int) -> Iterator[str]:
    """A table: the figures planned in all, those due when the job stopped, and the actual ones."""
    figures = report["figures"]
    partly = any(_value(n, figures[n]["planned"]) != _value(n, figures[n]["due"]) for n in _FIGURES)
    columns = ("planned", "due", "actual") if partly else ("planned", "actual")
    room = min(16, (width - 16 - _ERROR) // len(columns))
    yield f"  {'':<14}" + "".join(f"{name:>{room}}" for name in columns) + f"{'error':>{_ERROR}}"
    for name, label in _FIGURES.items():
        values = "".join(f"{_value(name, figures[name][column]):>{room}}" for column in columns)
        yield f"  {label:<14}{values}{percent(figures[name]['error_percent']):>{_ERROR}}"
    low, high = report["seconds_range"]
    inside = low <= figures["seconds"]["actual"] <= high
    text = f"{duration(low)} to {duration(high)}: the time lies {'within' if inside else 'outside'}"
    yield from entry("interval", text, width)


def _spent(report: Record, width: int) -> Iterator[str]:
    """What the job took by phase, beside which other work, and what it cost."""
    spent = report.get("spent")
    if not spent:
        return
    phases = {"plan": "reading and planning", "load": "loading", "run": "running", "write": "writing"}
    parts = [f"{duration(spent['seconds'].get(name, 0.0))} {words}" for name, words in phases.items()]
    yield from entry("in all", f"{duration(sum(spent['seconds'].values()))}: {', '.join(parts)}", width)
    if spent["beside"]:
        yield from entry("load", spent["beside"], width)
    if spent["price"] is not None:
        yield from entry("cost", price_text(spent), width)


_SPARED = {
    "left_out_tokens": ("left out", "by what the draft model looked at"),
    "read_prompt_tokens": ("kv folder", "read instead of computed"),
    "copied_prompt_tokens": ("documents", "copied instead of computed"),
}


def _value(name: str, value: float) -> str:
    return duration(value) if name == "seconds" else f"{round(value):,}"


def _counts(report: Record, width: int) -> Iterator[str]:
    counts = report["counts"]
    found = [f"{counts[name]:,} {label}" for name, label in _COUNTS.items() if name in counts]
    if found:
        yield from entry("pressure", ", ".join(found), width)
    if counts.get("drafted_tokens"):
        came_true = f"{counts['accepted_tokens']:,} of {counts['drafted_tokens']:,} proposed tokens came true"
        yield from entry("speculation", came_true, width)
    if forced := counts.get("forced_tokens"):
        yield from entry("forms", f"{count(forced, 'token')} certain by the forms of answers, computed together", width)
    if whole := counts.get("keys_whole"):
        yield from entry("keys", _keys(counts["keys_read"], whole, report.get("decisions", ())), width)
    if whole := counts.get("layers_whole"):
        yield from entry("layers", _layers(counts["layers_passed"], whole, report.get("decisions", ())), width)
    for name, (label, what) in _SPARED.items():
        if found := counts.get(name):
            beside = _planned(label, report.get("decisions", ()))
            yield from entry(label, f"{count(found, 'prompt token')} {what}{beside}", width)
    if counts.get("adapter_loads"):
        yield from entry("adapters", f"read from their files {count(counts['adapter_loads'], 'time')}", width)
    if "starved_seconds" in counts:
        starved = f"{duration(counts['starved_seconds'])} waiting for rows to be tokenised"
        yield from entry("starved", starved, width)


def _planned(name: str, decisions: Sequence[Record]) -> str:
    """What a plan expected to be read, at most, by the decision of that name."""
    found = next((one["facts"] for one in decisions if one["name"] == name), {})
    return f"; planned at most {found['read']:,}" if "read" in found else ""


def _keys(read: int, whole: int, decisions: Sequence[Record]) -> str:
    """Keys that selectors left to read, beside the share that the plan expected at most."""
    text = f"{read:,} of {whole:,} read in each layer ({read / whole:.0%}"
    planned = next((one["facts"] for one in decisions if one["name"] == "keys read"), None)
    return f"{text}; planned at most {planned['read'] / planned['whole']:.0%})" if planned else f"{text})"


def _layers(passed: int, whole: int, decisions: Sequence[Record]) -> str:
    """Tokens times the layers that they passed, beside the share that the plan expected."""
    text = f"{passed:,} of {whole:,} tokens times layers passed ({passed / whole:.0%}"
    planned = next((one["facts"] for one in decisions if one["name"] == "layers passed"), None)
    return f"{text}; planned {planned['passed'] / planned['whole']:.0%})" if planned else f"{text})"


def _forest(report: Record) -> str:
    done = sum(line["done"] for line in report["tree"] if line["parent"] == -1)
    if 0 < done < report["rows"]["planned"]:
        return "forest, with the rows that are done, of which those with short answers come first"
    return "forest"


def _branch(line: Record) -> str:
    """A line of the tree with what happened to its rows."""
    done, text = line["done"], branch(line)
    if not done:
        return f"{text} | not run"
    facts = [f"{line['output']:,} out, {line['expected']:,} expected ({percent(line['error_percent'])})"]
    if done < line["rows"]:
        facts.insert(0, f"{done:,} of {count(line['rows'], 'row')} done")
    facts += [f"{line[name]:,} {label}" for name, label in (("cut", "by length"), ("failed", "failed")) if line[name]]
    return f"{text} | {', '.join(facts)}"

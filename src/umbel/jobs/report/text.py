"""Prints a report as databases print EXPLAIN ANALYZE: the tree of the plan with actual beside expected figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from umbel.plan.explain.text import branch, count, duration, exactness, note_lines, tree_lines

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
_COUNTS: Mapping[str, str] = {
    "preemptions": "preemptions",
    "evicted_rows": "rows preempted",
    "recomputed_tokens": "tokens computed again",
}


def report_text(report: Record) -> str:
    """The report as text, at most about a hundred lines whatever the job; ends with a newline."""
    lines = [f"REPORT  {report['output']}: {status_text(report['status'])}", _rows(report)]
    if report["parts"]:
        lines.append(f"  {'answers':<14}{exactness(report['lossy'])}")
        lines += [*note_lines(report["notes"]), *_parts(report), *_figures(report), *_counts(report)]
        lines += [_forest(report), *tree_lines(report["tree"], _branch)]
    else:
        lines += ["  nothing was planned: no row reached the engine", *note_lines(report["notes"])]
    lines += [f"  {n:,} x {code}" for code, n in report["errors"].items()]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def verdict(figures: Record) -> str:
    """A line on how near the plan came, for the part that was done; `figures` as in a report, nothing when no step
    ran."""
    if not figures or not figures["steps"]["actual"]:
        return ""
    parts = [
        f"{_value(name, figures[name]['actual'])}{label} ({percent(figures[name]['error_percent'])})"
        for name, label in (("seconds", ""), ("output_tokens", " tokens out"), ("kv_peak_tokens", " tokens of KV"))
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
    return f"  {'rows':<14}{text}; {rows['cut']:,} ended by length"


def _parts(report: Record) -> Iterator[str]:
    if report["parts"] > 1:
        cut = report["cut_short"]
        text = f"{report['parts']} windows or runs, {cut} of them cut short; their plans are added up"
        yield f"  {'parts':<14}{text}"


def _figures(report: Record) -> Iterator[str]:
    """A table: the figures planned in all, those due when the job stopped, and the actual ones."""
    figures = report["figures"]
    partly = any(_value(n, figures[n]["planned"]) != _value(n, figures[n]["due"]) for n in _FIGURES)
    columns = ("planned", "due", "actual") if partly else ("planned", "actual")
    yield f"  {'':<14}" + "".join(f"{name:>16}" for name in columns) + f"{'error':>12}"
    for name, label in _FIGURES.items():
        values = "".join(f"{_value(name, figures[name][column]):>16}" for column in columns)
        yield f"  {label:<14}{values}{percent(figures[name]['error_percent']):>12}"
    low, high = report["seconds_range"]
    inside = low <= figures["seconds"]["actual"] <= high
    yield f"  {'interval':<14}{duration(low)} to {duration(high)}: the time lies {'within' if inside else 'outside'}"


def _value(name: str, value: float) -> str:
    return duration(value) if name == "seconds" else f"{round(value):,}"


def _counts(report: Record) -> Iterator[str]:
    counts = report["counts"]
    found = [f"{counts[name]:,} {label}" for name, label in _COUNTS.items() if name in counts]
    if found:
        yield f"  {'pressure':<14}{', '.join(found)}"
    if counts.get("drafted_tokens"):
        came_true = f"{counts['accepted_tokens']:,} of {counts['drafted_tokens']:,} proposed tokens came true"
        yield f"  {'speculation':<14}{came_true}"
    if "starved_seconds" in counts:
        yield f"  {'starved':<14}{duration(counts['starved_seconds'])} waiting for rows to be tokenised"


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

"""Writes a report as a page: the figures of the plan beside what happened, over time where that is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from umbel.jobs.report.pictures import histogram, interval
from umbel.jobs.report.replicas import replica_grids
from umbel.jobs.report.text import percent, status_text
from umbel.plan.explain.page import Picture, exactness_tile, forest_picture, render, scaled
from umbel.plan.explain.record import curve_of_json
from umbel.plan.explain.svg import Series, curves
from umbel.plan.explain.text import duration

Record = Mapping[str, Any]


def report_page(report: Record, text: str) -> str:
    """The page of a report: `report` as `read_report` gives it, `text` as `umbel report` prints it."""
    title = f"{report['output']}: {status_text(report['status'])}"
    pictures = list(_pictures(report)) if report["parts"] else []
    return render(title, _tiles(report), pictures, report, text, _ends(report), replica_grids(report["replicas"]))


def _tiles(report: Record) -> list[tuple[str, str, str]]:
    rows, figures = report["rows"], report["figures"]
    note = f"{rows['answered']:,} answered, {rows['failed']:,} failed, {rows['cut']:,} ended by length"
    tiles = [("rows done", f"{rows['stored']:,}", note)]
    for name, label in (("seconds", "time"), ("output_tokens", "tokens out"), ("kv_peak_tokens", "KV peak")):
        if figures:
            figure = figures[name]
            shown = duration if name == "seconds" else "{:,.0f}".format
            expected = f"{shown(figure['due'])} expected: {percent(figure['error_percent'])}"
            tiles.append((label, shown(figure["actual"]), expected))
    if report["parts"]:
        tiles.append(exactness_tile(report["lossy"]))
    return tiles


def _ends(report: Record) -> dict[str, dict[str, int]]:
    """Tables of how rows ended: answers by why they did, failed rows by code."""
    found = {"Why answers ended": report["reasons"], "Failed rows": report["errors"]}
    return {name: dict(counts) for name, counts in found.items() if counts}


def _pictures(report: Record) -> Iterator[Picture]:
    yield _time(report)
    if report["tree"]:
        yield forest_picture(report["tree"])
    yield from _course(report)
    if report["lengths"]:
        note = "How many answers were planned to have so many tokens, and how many had; of rows that have an answer."
        yield Picture("Lengths of answers", note, histogram(report["lengths"]))


def _time(report: Record) -> Picture:
    figure, (low, high) = report["figures"]["seconds"], report["seconds_range"]
    inside = "within" if low <= figure["actual"] <= high else "outside"
    (one,), unit = scaled([max(high, figure["actual"])])
    drawn = interval(low, figure["due"], high, figure["actual"], size=max(high, figure["actual"]) / one, unit=unit)
    note = f"What it took lies {inside} the interval that was predicted for what is done."
    return Picture("Time", note, drawn)


def _course(report: Record) -> Iterator[Picture]:
    """Tokens and KV over time, as planned and as measured."""
    curve, course = curve_of_json(report["curve"]), np.array(report["course"], np.float64).reshape(-1, 4)
    longest = max(float(curve.seconds.max(initial=0.0)), float(course[:, 0].max(initial=0.0)))
    _, unit = scaled([longest])
    planned, real = (scaled([*seconds.tolist(), longest])[0][:-1] for seconds in (curve.seconds, course[:, 0]))
    tokens = np.cumsum(curve.tokens * np.diff(curve.steps, prepend=0.0)).tolist()
    work = [
        Series([0.0, *planned], [0.0, *tokens], "planned", "tokens"),
        Series([0.0, *real], [0.0, *course[:, 2].tolist()], "as it was", "real"),
    ]
    note = "Tokens that went through the model since the start: those of prompts, computed once, and those of answers."
    yield Picture("Work", note, curves(work, label=note, x_label=unit, y_label="tokens so far"))
    held, moved = _held(course)
    memory = [
        Series(planned, curve.kv_tokens.tolist(), "planned", "kv", steps=True, filled=True),
        Series([real[i] for i in moved], held, "as it was, on average since the point before", "real", steps=True),
    ]
    note = "Tokens whose keys and values are held at a time, against the pool that they must fit."
    pool = report["kv_tokens"]
    drawn = curves(memory, label=note, x_label=unit, y_label="tokens held", limit=pool, limit_name="pool")
    yield Picture("KV memory", note, drawn)


def _held(course: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[list[float], list[int]]:
    """The tokens held on average between points of a course at which steps were made, and the places of these."""
    steps, sums = (np.diff(course[:, column], prepend=0.0) for column in (1, 3))
    moved = np.flatnonzero(steps > 0)
    return (sums[moved] / steps[moved]).tolist(), moved.tolist()

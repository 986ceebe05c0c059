"""Writes a report as a page: the figures of the plan beside what happened, over time where that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from umbel.jobs.report.text import percent, status_text
from umbel.plan.explain.page import Picture, exactness_tile, forest_picture, render, scaled
from umbel.plan.explain.record import curve_of_json
from umbel.plan.explain.svg import Series, curves
from umbel.plan.explain.text import duration

Record = Mapping[str, Any]


def report_page(report: Record, text: str) -> str:
    """The page of a report: `report` as `read_report` gives it, `text` as `umbel report` prints it."""
    title = f"{report['output']}: {status_text(report['status'])}"
    pictures = [forest_picture(report["tree"])] if report["tree"] else []
    if report["parts"]:
        pictures += _course(report)
    return render(title, _tiles(report), pictures, report, text, report["errors"])


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


def _course(report: Record) -> list[Picture]:
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
    memory = [
        Series(planned, curve.kv_tokens.tolist(), "planned", "kv", steps=True, filled=True),
        Series(real, course[:, 3].tolist(), "highest so far, as it was", "real", steps=True),
    ]
    pool = report["kv_tokens"]
    return [
        _picture("Work", "Tokens that went through the model since the start.", work, unit),
        _picture("KV memory", "Tokens whose keys and values are held, against the pool.", memory, unit, pool),
    ]


def _picture(name: str, note: str, series: Sequence[Series], unit: str, pool: float | None = None) -> Picture:
    drawn = curves(series, label=note, x_label=unit, y_label="tokens", limit=pool, limit_name="pool")
    return Picture(name, note, drawn)

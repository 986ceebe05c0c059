"""The pages of the dashboard as HTML, written by the server; nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from umbel.jobs.progress import Progress
from umbel.plan.explain.svg import Series, curves, short
from umbel.plan.explain.text import duration
from umbel.serve.batches.records import LIVE, BatchRecord
from umbel.serve.dashboard.engine_view import EngineView
from umbel.serve.dashboard.recent import RecentSamples
from umbel.serve.pace import SHOWN, Pace

_HEIGHT = 210
_WAITS = (("first", "to the first token (TTFT)"), ("between", "between tokens (TBT)"))


@dataclass(frozen=True, slots=True)
class BatchLine:
    """A batch as the dashboard lists it."""

    id: str
    endpoint: str
    name: str
    status: str
    waits: str
    done: int
    total: int
    failed: int
    planned: str
    took: str
    plan: bool

    @property
    def good_share(self) -> float:
        """Rows with an answer, in percent of all."""
        return 100 * (self.done - self.failed) / max(1, self.total)

    @property
    def bad_share(self) -> float:
        """Rows without one."""
        return 100 * self.failed / max(1, self.total)

    @classmethod
    def of(
        cls, batch: BatchRecord, waits_for: Mapping[str, Any] | None, progress: Progress | None, *, plan: bool
    ) -> BatchLine:
        """The line of a batch; `progress` is that of its job while it runs, `plan` says that there is one to show."""
        counts, waits = batch.counts, waits_for or {}
        said = {"batches": f"{len(waits.get('batch_ids', ()))} before it", "requests": f"{waits.get('rows')} requests"}
        kind = str(waits.get("for", ""))
        return cls(
            id=batch.id,
            endpoint=batch.endpoint,
            name=(batch.metadata or {}).get("name", "")[:80],
            status=batch.status.replace("_", " "),
            waits=said.get(kind, kind),
            done=counts.completed + counts.failed,
            total=counts.total,
            failed=counts.failed,
            planned=_seconds(progress.planned_seconds if progress else _figure(batch, "planned")),
            took=_seconds(progress.reading().elapsed_seconds if progress else _figure(batch, "actual")),
            plan=plan,
        )


def _figure(batch: BatchRecord, side: str) -> float:
    """The seconds of a batch's job by its plan, or as they were; 0 while that is not known."""
    return float(batch.figures.get("against_plan", {}).get("seconds", {}).get(side) or 0.0)


def _seconds(value: float) -> str:
    return duration(value) if value else ""


@dataclass(frozen=True, slots=True)
class PageWriter:
    """Writes pages for a model of some names, with the targets of waits that it was given (None: none)."""

    names: Sequence[str]
    ttft_target: float | None = None
    tbt_target: float | None = None

    def page(self, template: str, **values: Any) -> str:
        """A whole page."""
        return _environment().get_template(template).render(title=f"Umbel · {self.names[0]}", **values)

    def live(self, recent: RecentSamples, pace: Pace, live: int, batches: Sequence[BatchLine] | None) -> str:
        """The part of the dashboard that changes; `batches` is None where the server has no store for any."""
        return _environment().get_template("live.html").render(**self.values(recent, pace, live, batches))

    def values(
        self, recent: RecentSamples, pace: Pace, live: int, batches: Sequence[BatchLine] | None
    ) -> Mapping[str, Any]:
        """What the template of that part is filled with."""
        none = "None yet: POST /v1/files, then /v1/batches."
        return {
            "tiles": _tiles(recent, live, batches),
            "batches": batches or (),
            "no_batches": none if batches is not None else "This server keeps none: start it with --store DIR.",
            "rates": _rates(recent),
            "running": _running(recent),
            "between": _between(recent, self.tbt_target),
            "view": recent.last.view,
            "waits": self._waits(pace),
            "shares": SHOWN,
        }

    def _waits(self, pace: Pace) -> list[tuple[str, list[str], str]]:
        targets, found = (self.ttft_target, self.tbt_target), pace.percentiles()
        lines = []
        for (kind, name), target in zip(_WAITS, targets, strict=True):
            if found[kind]:
                values = [duration(seconds) for _, seconds in found[kind]]
                lines.append((name, values, "none" if target is None else duration(target)))
        return lines


def _tiles(recent: RecentSamples, live: int, batches: Sequence[BatchLine] | None) -> list[tuple[str, str, str]]:
    view, rates = recent.last.view, recent.rates()
    now = rates[-1] if rates else None
    going = [batch for batch in batches or () if batch.status.replace(" ", "_") in LIVE]
    return [
        ("requests", f"{live:,}", "prompts that are not answered"),
        ("queue", f"{view.waiting:,}", "rows that wait to start"),
        ("running", f"{view.running:,}", "samples that share each step"),
        ("written", short(now.written if now else 0.0), "tokens a second"),
        ("read", short(now.prompt if now else 0.0), "prompt tokens a second"),
        ("KV in use", f"{view.share(view.shared + view.own):.0%}", f"of {view.pool * view.page_size:,} tokens"),
        ("batches", f"{len(going):,}", "not done"),
    ]


def _rates(recent: RecentSamples) -> Markup:
    rates = recent.rates()
    x = [rate.at - rates[0].at for rate in rates] if rates else []
    written = Series(x, [rate.written for rate in rates], "written", "tokens")
    read = Series(x, [rate.prompt for rate in rates], "read of prompts", "kv")
    return curves(
        [written, read], label="tokens a second", x_label="seconds", y_label="tokens a second", height=_HEIGHT
    )


def _running(recent: RecentSamples) -> Markup:
    samples = recent.samples
    x = [sample.at - samples[0].at for sample in samples]
    views: list[EngineView] = [sample.view for sample in samples]
    running = Series(x, [float(view.running) for view in views], "running", "running", filled=True)
    waiting = Series(x, [float(view.waiting) for view in views], "waiting", "tokens")
    beneath = Series(x, [float(view.beneath) for view in views], "of batches", "kv")
    return curves(
        [running, beneath, waiting], label="samples that run", x_label="seconds", y_label="rows", height=_HEIGHT
    )


def _between(recent: RecentSamples, target: float | None) -> Markup:
    samples = recent.samples
    x = [sample.at - samples[0].at for sample in samples]
    waits = Series(x, [1000 * sample.wait for sample in samples], "P99 of the last ones", "tokens")
    limit = None if target is None else 1000 * target
    name = "waits between tokens"
    return curves(
        [waits], label=name, x_label="seconds", y_label="ms", limit=limit, limit_name="target", height=_HEIGHT
    )


def _environment() -> Environment:
    folder = files("umbel.serve.dashboard")
    loader = FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8"))
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["number"] = lambda value: f"{value:,}"
    return made

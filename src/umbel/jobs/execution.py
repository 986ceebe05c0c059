"""Brings the rows of a job into its store: window after window, part after part, committed in groups as they finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from umbel.ir.contain import as_refusal, concerns_row, row_error
from umbel.ir.plan import Plan
from umbel.ir.report import Stats
from umbel.ir.request import Output
from umbel.ir.spans import NO_SPANS, Spans
from umbel.ir.workload import Workload
from umbel.jobs.progress import Progress
from umbel.jobs.read.prepare import Window
from umbel.jobs.read.records import ReadNotes, note_texts
from umbel.jobs.report.actuals import Recording
from umbel.jobs.rounds import JobPart, Rounds
from umbel.jobs.signals import Drain, OutOfTime, StopSignal
from umbel.jobs.store import JobStore, Result
from umbel.jobs.write.answers import Renderer

NOTES = "notes"  # the store's record of what was noticed while rows were read (ReadNotes.noted)


class Engine(Protocol):
    """The part of `umbel.api.LLM` that a job needs. `first_token` is when the first token was there, on the clock of
    `time.monotonic`; None before that."""

    first_token: float | None

    def plan_for(self, workload: Workload) -> Plan:
        """The plan by which `execute` would run the workload; may be called while another one is running."""

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        """Outputs of the workload's rows as they finish; closing the iterator abandons the rest."""

    def stats(self) -> Stats:
        """The totals so far."""


@dataclass(slots=True)
class Execution:
    """The running part of a job. `load` builds the engine, once, when the first row is to be run; `notes` fills while
    rows are read."""

    store: JobStore
    stop: StopSignal
    progress: Progress
    renderer: Renderer
    load: Callable[[], Engine]
    rounds: Rounds
    notes: ReadNotes = field(default_factory=ReadNotes)
    spans: Spans = NO_SPANS
    engine: Engine | None = None
    open_ended: int = 0
    _recording: Recording | None = None
    _starved: float = field(default=0.0)

    def planned(self, windows: Iterator[Window]) -> Iterator[tuple[Window, Plan | None]]:
        """Windows with their plans, as soon as there is an engine to plan for."""
        for window in windows:
            engine = self.engine
            ready = engine is not None and len(window.workload) > 0
            yield window, engine.plan_for(window.workload) if ready and engine is not None else None

    def run(self, window: Window, plan: Plan | None = None) -> None:
        """Run the rows of a window, or those that fit the budget, and put their results into the store."""
        self.open_ended += window.open_ended
        engine = self._ready() if len(window.workload) else None  # first: nothing is kept of a job that cannot run
        self._keep(self._refused(window))
        if engine is None:
            return
        self.progress.begun += len(window.workload)
        plan = self.spans.lap("planning", plan or engine.plan_for(window.workload))
        for part in self.rounds.parts(window.workload, plan, engine):
            self._run_part(engine, window, part)

    def _refused(self, window: Window) -> Iterator[Result]:
        for row in window.faults:
            if row.error is not None:
                yield self.renderer.failure(row.row, row.custom_id, row.style, row.error)

    def _ready(self) -> Engine:
        if self.engine is None:
            self.progress.enter("load")
            self.engine = self.spans.lap("loading the model", self.load())
            self.progress.stats = self.engine.stats
            self.rounds.begin(self.engine.stats())
            self.progress.enter("run")
        return self.engine

    def _run_part(self, engine: Engine, window: Window, part: JobPart) -> None:
        """Run some rows of a window by a plan, and record what happens to them."""
        self._record(engine, part)
        outputs = engine.execute(part.workload, part.plan)
        watched = outputs if self._recording is None else self._recording.watch(outputs)
        try:
            self._keep(self._rendered(watched, window, part))
        except (Drain, OutOfTime):
            self.store.put(live=self.live())  # with what was computed of rows that are not finished
            raise
        finally:
            close = getattr(outputs, "close", None)
            if close is not None:
                close()
            self._recording = None

    def _record(self, engine: Engine, part: JobPart) -> None:
        store = self.store
        record, live = store.get("plan"), store.get("live")
        self._recording = Recording(part.plan, part.workload, engine.stats(), record=record, live=live)
        started = {"plan": self._recording.plan_record(), "live": self._recording.as_dict(engine.stats())}
        noted = self.notes.with_earlier(store.get(NOTES))
        store.put(**started, **{NOTES: noted}, ended=None)  # until the job says how it ended
        self.progress.tell_plan(replace(part.plan, notes=(*part.plan.notes, *note_texts(noted))))

    def _rendered(self, outputs: Iterator[Output], window: Window, part: JobPart) -> Iterator[Result]:
        keys, params, names, progress = part.workload.keys.tolist(), part.workload.params, window.names, self.progress
        places = part.places
        for output in outputs:
            i = output.row if places is None else places[output.row]
            row, custom_id, style = keys[output.row], names.custom_id(i), names.style(i)
            try:
                result = self.renderer.answer(row, custom_id, style, output, many=params[output.row].n > 1)
            except BaseException as error:
                if not concerns_row(error):
                    raise
                reason = row_error(as_refusal(error, "writing the answer of"))
                result = self.renderer.failure(row, custom_id, style, reason)
            yield result
            progress.ran += 1
            progress.finished_prompt_tokens += output.prompt_tokens

    def _keep(self, results: Iterator[Result]) -> None:
        """Commit results in groups; finished results are committed too when the source fails or a stop is asked for."""
        store, progress = self.store, self.progress
        try:
            for result in results:
                due = store.add(result)
                progress.done += 1
                progress.failed += result.code is not None
                if due:
                    self._commit()
        finally:
            with self.stop.shielded():
                if not store.broken:
                    self._commit()

    def _commit(self) -> None:
        self.spans.lap("answers", None)
        self.store.commit(self.live())
        self.spans.lap("store", None)

    def live(self) -> Mapping[str, object] | None:
        """The counters over all runs of this job, None where nothing has changed."""
        if self._recording is None or self.engine is None:
            return None
        starved, self._starved = self.progress.starved_seconds - self._starved, self.progress.starved_seconds
        self._recording.starved_seconds += starved
        return self._recording.as_dict(self.engine.stats())

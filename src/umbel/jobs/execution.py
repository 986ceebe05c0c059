"""Brings the rows of a job into its store: part after part, committed in groups as they finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

from umbel.ir.arrivals import Arrivals
from umbel.ir.contain import as_refusal, concerns_row, row_error
from umbel.ir.plan import Plan
from umbel.ir.report import Left, Stats
from umbel.ir.request import Output
from umbel.ir.spans import NO_SPANS, Spans
from umbel.ir.stops import Stops
from umbel.ir.tally import ReplicaTally
from umbel.ir.workload import Workload
from umbel.jobs.progress import FirstWindow, Progress
from umbel.jobs.read.names import RowNames
from umbel.jobs.read.prepare import Window
from umbel.jobs.read.records import ReadNotes, Style, note_texts
from umbel.jobs.report.actuals import Recording
from umbel.jobs.rounds import JobPart, Rounds
from umbel.jobs.signals import Drain, OutOfTime, StopSignal
from umbel.jobs.status import PROGRESS, progress_record
from umbel.jobs.store import JobStore, Result
from umbel.jobs.unfinished import Unfinished
from umbel.jobs.write.answers import Renderer
from umbel.jobs.write.gathering import Gathering
from umbel.plan.explain.words import Spell, no_words

ABOUT = "about"  # the store's record of what its last run was (plan.explain.about.About)
NOTES = "notes"  # the store's record of what was noticed while rows were read (ReadNotes.noted)


class Engine(Protocol):
    """The part of `umbel.api.LLM` that a job needs. `first_token` is when the first token was there, on the clock of
    `time.monotonic`; None before that. `keeps_unfinished`: whether it obeys the stops that it is given."""

    first_token: float | None
    keeps_unfinished: bool

    def plan_for(self, workload: Workload) -> Plan:
        """The plan by which a workload would be run; may be called while others are running."""

    def execute_all(self, arrivals: Arrivals, stops: Stops | None = None) -> Iterator[tuple[int, Output]]:
        """Outputs of the rows of all workloads as they finish, each with the number of its workload, until `stops` ends
        them; closing the iterator abandons the rest."""

    def stats(self) -> Stats:
        """The totals so far."""

    def left(self) -> Left:
        """What the rows that it was given have left to do."""

    def replicas(self) -> tuple[ReplicaTally, ...]:
        """What each of several replicas has done so far; empty where there is one."""


class RunningPart:
    """A part of which not all rows have an output yet (`left`): what is needed to write them."""

    def __init__(self, workload: Workload, names: RowNames, places: list[int] | None = None):
        self.left = len(workload)
        self.keys, self.params, self._places = workload.keys.tolist(), workload.params, places
        self._names, self._echoed = names, dict[int, list[int]]()
        if names.any_echoes:
            styles = ((row, names.style(self._place(row))) for row in range(self.left))
            self._echoed = {row: workload.prompt(row).tolist() for row, style in styles if style == Style.ECHO}

    def result(self, output: Output, renderer: Renderer, gathering: Gathering) -> Result | None:
        """What an output is stored as: a failure where it cannot be written, None where its row waits for others."""
        row, many = self.keys[output.row], self.params[output.row].n > 1
        place, prompt = self._place(output.row), self._echoed.get(output.row, ())
        branches, first = self._names.branches.get(row, (None, place))
        head = self._names.head(row, first)
        try:
            if branches is not None:
                outputs = gathering.add(row, place - first, branches, output)
                return None if outputs is None else renderer.together(head, branches, outputs)
            return renderer.answer(head, output, many=many, prompt=prompt)
        except BaseException as error:
            if not concerns_row(error):
                raise
            return renderer.failure(head, row_error(as_refusal(error, "writing the answer of")))

    def _place(self, row: int) -> int:
        """Where a row of the part stands in its window."""
        return row if self._places is None else self._places[row]


class ReadingAhead(Protocol):
    """How far the reading of windows is."""

    @property
    def ready(self) -> bool:
        """Whether the next one can be taken without waiting for it."""

    @property
    def starved_seconds(self) -> float:
        """Time that was spent waiting for windows after the first."""


@dataclass(slots=True)
class Execution:
    """The running part of a job: an Arrivals for the engine. `load` builds the engine, once, when the first row is to
    be run; `notes` fills while rows are read; `spell` gives the text of token ids."""

    store: JobStore
    stop: StopSignal
    progress: Progress
    renderer: Renderer
    load: Callable[[], Engine]
    rounds: Rounds
    notes: ReadNotes = field(default_factory=ReadNotes)
    spans: Spans = NO_SPANS
    spell: Spell = no_words
    engine: Engine | None = None
    open_ended: int = 0
    discarded_tokens: int = 0
    keeps_unfinished: bool = True
    unfinished: Unfinished = field(init=False)
    _parts: Iterator[tuple[JobPart, RowNames] | None] = field(default_factory=lambda: iter(()))
    _held: tuple[JobPart, RowNames] | None = None  # the first part, which the engine was loaded for
    _reading: ReadingAhead | None = None
    _running: dict[int, RunningPart] = field(default_factory=dict)
    _gathering: Gathering = field(default_factory=Gathering)
    _recording: Recording | None = None
    _starved: float = field(default=0.0)

    def __post_init__(self) -> None:
        self.unfinished = Unfinished(
            self.store, self.stop, self._running.__getitem__, note=self._note, sample=self._sample
        )

    def planned(self, windows: Iterator[Window]) -> Iterator[tuple[Window, Plan | None]]:
        """Windows with their plans, as soon as there is an engine to plan for."""
        for window in windows:
            engine = self.engine if len(window.workload) else None
            yield window, None if engine is None else engine.plan_for(window.workload)

    def run(self, windows: Iterator[tuple[Window, Plan | None]], reading: ReadingAhead | None = None) -> None:
        """Run the rows of all windows, or those that fit the budget, and put their results into the store.

        Where windows are read meanwhile, one that is ready may begin before the one before it has ended.
        """
        self._parts, self._reading = self._made(windows), reading
        self._held = self._next(wait=True)
        if self._held is None or self.engine is None:
            return
        stats, record, live = self.engine.stats(), self.store.get("plan"), self.store.get("live")
        self._recording = recording = Recording(stats, record=record, live=live, spell=self.spell)
        self.keeps_unfinished = self.engine.keeps_unfinished
        outputs = self.engine.execute_all(self, self.unfinished if self.keeps_unfinished else None)
        try:  # an engine that obeys stops ends before one is raised
            with self.stop.shielded() if self.keeps_unfinished else nullcontext():
                self._keep(self._rendered(recording.watch(outputs)))
        except (Drain, OutOfTime):
            if recording.parts:
                self.store.put(live=self.live())  # with what was computed of rows that are not finished
                self._count_discarded(recording, stats)
            raise
        finally:
            getattr(outputs, "close", lambda: None)()
            self._recording = None

    def _count_discarded(self, recording: Recording, before: Stats) -> None:
        """What was drawn, or given to rows, and is neither part of an answer nor kept."""
        assert self.engine is not None
        held = self.unfinished.given + self.engine.stats().output_tokens - before.output_tokens
        self.discarded_tokens = max(0, held - recording.answered_tokens - sum(self.unfinished.kept.values()))

    @property
    def several(self) -> bool:
        """Whether windows may overlap."""
        return self._reading is not None and not self.rounds.budget

    def take(self, *, wait: bool) -> tuple[Workload, Plan] | None:
        """The next rows to run, and their plan; None where there are none or, unless `wait`, none yet. Under a budget
        that is when those before them are done, as the next are chosen by what these have taken."""
        with self.stop.listening() if wait else nullcontext():  # no row runs that a stop could wait for
            found, self._held = self._held or self._next(wait=wait), None
        if found is None:
            return None
        part, names = found
        self._running[self._begin(part)] = RunningPart(part.workload, names, part.places)
        return part.workload, part.plan

    def _next(self, *, wait: bool) -> tuple[JobPart, RowNames] | None:
        if not wait and not (self.several and self._reading is not None and self._reading.ready):
            return None
        for found in self._parts:
            if found is not None or not wait:
                return found
        return None

    def _made(self, windows: Iterator[tuple[Window, Plan | None]]) -> Iterator[tuple[JobPart, RowNames] | None]:
        """The parts of all windows; None for a window without rows to run."""
        for window, plan in windows:
            if self._reading is not None:
                self.progress.starved_seconds = self._reading.starved_seconds
            self.open_ended += window.open_ended
            engine = self._loaded() if len(window.workload) else None  # first: nothing is kept of a job that cannot run
            self._keep(self._refused(window))
            if engine is None:
                yield None
                continue
            if self._reading is not None and not self.progress.begun:
                rows = self.progress.to_run or None
                self.progress.window = FirstWindow(len(window.workload), window.rows, rows, window.share)
            self.progress.begun += window.runnable
            known = self.spans.lap("planning", plan or engine.plan_for(window.workload))
            share = window.runnable / len(window.workload)
            for part in self.rounds.parts(window.workload, known, engine):
                self.progress.given += share * len(part.workload)
                self.progress.planned_seconds += part.plan.estimates.seconds[1]
                yield part, window.names
            if self.rounds.spent:
                return

    def _refused(self, window: Window) -> Iterator[Result]:
        for row in window.faults:
            if row.error is not None:
                yield self.renderer.failure(row.head, row.error)
        for left in window.skipped:
            yield self.renderer.skipped(left.row.head, left.n_tokens, left.n)

    def _loaded(self) -> Engine:
        if self.engine is None:
            self.progress.enter("load")
            self.engine = self.spans.lap("loading the model", self.load())
            self.progress.stats, self.progress.left = self.engine.stats, self.engine.left
            self.progress.replicas = self.engine.replicas
            self.rounds.begin(self.engine.stats())
            self.progress.enter("run")
        return self.engine

    def _begin(self, part: JobPart) -> int:
        """Record that a part begins; returns its number."""
        assert self.engine is not None and self._recording is not None
        store, stats, recording = self.store, self.engine.stats(), self._recording
        if recording.parts:
            self._commit()  # rows that are counted as done are stored before the record says so
        number = recording.begin(part.plan, part.workload, stats)
        started = {"plan": recording.plan_record(), "live": recording.as_dict(stats, self.engine.replicas())}
        noted = self.notes.with_earlier(store.get(NOTES))
        store.put(**started, **{NOTES: noted}, ended=None)  # until the job says how it ended
        self.progress.tell_plan(replace(part.plan, notes=(*part.plan.notes, *note_texts(noted))))
        return number

    def _rendered(self, outputs: Iterator[tuple[int, Output]]) -> Iterator[Result]:
        for number, output in outputs:
            part = self._running[number]
            result = part.result(output, self.renderer, self._gathering)
            if result is not None:
                yield result
                self.unfinished.answered(result.row)
                self.progress.ran += 1
            self.progress.finished_prompt_tokens += output.prompt_tokens
            part.left -= 1
            if not part.left:
                del self._running[number]

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

    def _note(self) -> None:
        """Let others see how far the job is."""
        self.store.put(**{PROGRESS: progress_record(self.progress.reading())})

    def _sample(self) -> None:
        """Record where the run is, for the pictures of its report."""
        if self._recording is not None and self.engine is not None:
            self._recording.sample(self.engine.stats)

    def _commit(self) -> None:
        self.spans.lap("answers", None)
        self.store.commit(self.live())
        self.spans.lap("store", None)

    def live(self) -> Mapping[str, object] | None:
        """The counters over all runs of this job, None where nothing has changed."""
        if self.engine is None or self._recording is None or not self._recording.parts:
            return None
        starved, self._starved = self.progress.starved_seconds - self._starved, self.progress.starved_seconds
        self._recording.starved_seconds += starved
        return self._recording.as_dict(self.engine.stats(), self.engine.replicas())

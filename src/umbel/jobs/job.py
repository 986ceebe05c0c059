"""One batch job from file to file: read, run, commit, write; resumed where an earlier run of it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from umbel.config import readable
from umbel.errors import UmbelError
from umbel.ir.plan import Plan
from umbel.ir.spans import NO_SPANS, Spans
from umbel.jobs.begun import named, started
from umbel.jobs.collector import rare_searches
from umbel.jobs.execution import ABOUT, NOTES, Engine, Execution
from umbel.jobs.failpoints import FailHook, no_failpoint
from umbel.jobs.job_spec import JobSpec
from umbel.jobs.job_tokenizer import JobTokenizer
from umbel.jobs.neighbours import Neighbours
from umbel.jobs.paths import clear_store, remove_store
from umbel.jobs.progress import Progress
from umbel.jobs.read.alike import unless_alike, unless_faulty
from umbel.jobs.read.prefetch import Ahead, Halt
from umbel.jobs.read.prepare import Window
from umbel.jobs.read.records import ReadNotes
from umbel.jobs.read.windows import Feed, open_feed
from umbel.jobs.report.report import report_of
from umbel.jobs.report.sums import fold
from umbel.jobs.rounds import Rounds
from umbel.jobs.signals import Drain, OutOfTime, StopSignal
from umbel.jobs.spent import add_spent
from umbel.jobs.store import JobStore
from umbel.jobs.store_reader import Totals
from umbel.jobs.summary import Summary, warnings_of
from umbel.jobs.write.answers import Renderer
from umbel.jobs.write.growing import growing
from umbel.jobs.write.openai_answers import Issuer
from umbel.jobs.write.partial import NOT_RUN, partial_lines, reason_of, writing_seconds
from umbel.jobs.write.placing import SEALED
from umbel.jobs.write.publish import Publisher, Rows

# What another run, or more memory, may answer.
RETRYABLE = ("non_finite_logits", "kv_capacity_exceeded", "replica_died", "replica_hung", "internal_error")


@dataclass(slots=True)
class Job:
    """Runs a `JobSpec`, once.

    `load_tokenizer`: takes the moment that chat templates see as today, which is when the job was first started, so
        that a resume does not change a prompt.
    `load`: builds the engine; called only when there are rows to run.
    `warm`: imports what `load` needs, of a large file while it is scanned; not cut short by a stop.
    `began`: when the user began to wait, on the clock of `time.monotonic`.
    `last`: the process ends with the job.
    `spans`: where the job's time goes.
    `arithmetic`: the part of the identity that the machine decides (config.DECIDED_HERE), known before `load`.
    `about`: what the run is, for its report.
    """

    spec: JobSpec
    load_tokenizer: Callable[[datetime], JobTokenizer]
    load: Callable[[], Engine]
    progress: Progress = field(default_factory=Progress)
    at: FailHook = no_failpoint
    warm: Callable[[], object] = lambda: None
    feed: Callable[..., Feed] = open_feed
    began: float = field(default_factory=time.monotonic)
    last: bool = False
    spans: Spans = NO_SPANS
    arithmetic: Callable[[], Mapping[str, Any]] = dict
    about: Callable[[], Mapping[str, str]] = dict
    neighbours: Neighbours = field(default_factory=Neighbours)
    _notes: ReadNotes = field(default_factory=ReadNotes)
    _execution: Execution | None = None

    def run(self) -> Summary:
        """Run the whole job. Raises UmbelError. SIGTERM and Ctrl-C end it early with status "drained", its budget with
        "budget"."""
        paths = self.spec.checked_paths()
        self.spans.lap("starting", None)
        self.progress.enter("plan")
        if self.spec.fresh:
            clear_store(paths.store)
        stop = StopSignal(last=self.last)
        store = JobStore(paths.store, self.at, shield=stop.shielded)
        try:
            with rare_searches(), stop:
                return self._run(store, paths.target, stop)
        except UmbelError:
            with suppress(UmbelError):
                if store.is_new():  # nothing is lost, so nothing is left
                    store.close()
                    remove_store(paths.store)
            raise
        finally:
            self.progress.enter("")
            self.progress.freeze()
            if self._execution is not None:
                self._execution.engine = None  # its memory is free, even while this job is still referenced
            store.close()

    def _run(self, store: JobStore, output: Path, stop: StopSignal) -> Summary:
        try:
            with stop.listening():
                return self._complete(store, output, stop)
        except (UmbelError, KeyboardInterrupt):
            raise
        except BaseException as error:
            # Once a stop was asked for, whatever comes is how a library handed it on, or what it broke on its way.
            if not stop.asked and not isinstance(error, Drain):
                raise
        store.put(ended="drained")
        return self._summary(store, "drained", 0)

    def _complete(self, store: JobStore, output: Path, stop: StopSignal) -> Summary:
        publisher = self._publisher(store, output)
        publisher.clear()
        store.identify(self.spec.identity)
        model, models = named(store, self.spec.model, self.spec.options)
        self.spec = replace(self.spec, model=model, options=replace(self.spec.options, models=models))
        complete = publisher.check(fresh=self.spec.fresh)
        if self.spec.retry_failed:
            sealed = store.get(SEALED)
            partial = {SEALED: {**sealed, "partial": True}} if sealed else {}
            complete = not store.forget(RETRYABLE, **partial) and complete
        if complete:
            stop.settle()
            return self._summary(store, "already_complete", store.totals().rows)
        with growing(store, output, self.spec.order, fresh=self.spec.fresh):
            return self._collect_and_publish(store, publisher, stop)

    def _publisher(self, store: JobStore, output: Path) -> Publisher:
        spec = self.spec
        return Publisher(store, output, spec.errors, spec.order, self.at, lambda: spec.source(ReadNotes()).kinds())

    def _collect_and_publish(self, store: JobStore, publisher: Publisher, stop: StopSignal) -> Summary:
        done, renderer_of = store.done(), self._renderer(store)
        resumed = store.totals()
        store.check_records()  # now, not when the output is there
        self.progress.done, self.progress.failed, reason = resumed.rows, resumed.failed, NOT_RUN
        try:
            whole = self._collect(store, stop, done, *renderer_of)
            stop.limit(None)
        except (OutOfTime, Drain) as stopped:
            whole, reason = self._answered(store), reason_of(stopped)  # if whole, it came too late to end anything
            if not whole and isinstance(stopped, Drain):
                raise
        self.progress.enter("write")
        if whole:
            self._publish(publisher, stop, lambda: store.lines(self.spec.order), partial=False)
            return self._summary(store, "complete", resumed.rows)
        spec, renderer = self.spec, renderer_of[1]
        rows = lambda: partial_lines(store, spec.source(ReadNotes()), renderer, spec.order, reason)  # noqa: E731
        self._publish(publisher, stop, rows, partial=True)
        return self._summary(store, "budget", resumed.rows)

    def _answered(self, store: JobStore) -> bool:
        """Whether every row of the input is known and done."""
        return 0 < self.progress.rows == store.totals().rows

    def _renderer(self, store: JobStore) -> tuple[JobTokenizer, Renderer]:
        spec, began = self.spec, started(store)
        tokenizer = self.load_tokenizer(began)
        issuer = Issuer.of(spec.identity, spec.model, began, spec.options.answers)
        return tokenizer, Renderer(issuer, tokenizer.token_bytes, self.spec.pooler.labels)

    def _collect(
        self, store: JobStore, stop: StopSignal, done: bytearray, tokenizer: JobTokenizer, renderer: Renderer
    ) -> bool:
        """Bring every row into the store; False when the budget was spent before that."""
        budget, halt = self.spec.budget, Halt()
        ends = None if budget.seconds is None else self.began + budget.seconds
        self._limit(stop, ends, 0)
        builder = partial(self.spec.builder, tokenizer, halt.check, self._notes)
        source = self.spec.source(self._notes)
        feed = self.feed(source, done, builder, meanwhile=partial(stop.spare, self.warm), cheapest_first=bool(budget))
        rounds = Rounds(budget, self.progress, self.spec.context, ends)
        self._execution = execution = Execution(
            store, stop, self.progress, renderer, partial(self._load, store, stop), rounds, self._notes, self.spans
        )
        execution.spell = tokenizer.spell
        execution.unfinished.tell = self.progress.stop
        execution.unfinished.grace, execution.unfinished.ends = self.spec.grace, ends
        if feed.rows is not None:
            self._tell_rows(feed.rows, done)
            self._limit(stop, ends, feed.rows)
        windows = unless_faulty(feed, self._notes) if self.spec.options.strict else feed.windows()
        planned = execution.planned(unless_alike(windows, source.name, done))
        arrived = partial(self._arrived, lambda: self._tell_rows(feed.rows, done), tokenizer)
        if feed.whole:
            execution.run(arrived(planned))
        else:
            with Ahead(planned, halt) as ahead:
                execution.run(arrived(ahead), ahead)
        if rounds.spent:
            return False
        self._tell_rows(feed.rows, done)
        missing = self.progress.rows - store.totals().rows
        if missing:
            raise UmbelError(f"the engine gave no answer for {missing} rows; run the same command again to retry them")
        return True

    def _arrived(
        self, tell: Callable[[], None], tokenizer: JobTokenizer, windows: Iterator[tuple[Window, Plan | None]]
    ) -> Iterator[tuple[Window, Plan | None]]:
        """Windows as they are taken, with what is known since then of the whole input."""
        for window, plan in windows:
            self.spans.lap("reading and tokenising", None)
            tell()
            self._notes.take((*tokenizer.notes, *self.spec.options.said))
            yield window, plan

    def _load(self, store: JobStore, stop: StopSignal) -> Engine:
        stop.spare(self.warm)
        store.settle(self.arithmetic())
        engine = self.load()
        store.put(**{ABOUT: dict(self.about())})
        return engine

    def _limit(self, stop: StopSignal, ends: float | None, rows: int) -> None:
        """Stop in time to write an output of so many rows."""
        if ends is not None and self.spec.budget.seconds is not None:
            stop.limit(ends - time.monotonic() - writing_seconds(rows, self.spec.budget.seconds))

    def _tell_rows(self, rows: int | None, done: bytearray) -> None:
        if rows is not None:
            self.progress.rows = rows
            self.progress.to_run = rows - done.count(1)

    def _publish(self, publisher: Publisher, stop: StopSignal, rows: Rows, *, partial: bool) -> None:
        self.spans.lap("reading and tokenising", None)
        publisher.write(rows, stop.shielded(), stop.settle, partial=partial)
        self.spans.lap("writing the output", None)

    def _summary(self, store: JobStore, status: str, resumed: int) -> Summary:
        self.progress.enter("")
        totals = store.totals()
        live = store.get("live") or {}
        noted = self._notes.with_earlier(store.get(NOTES))
        if noted:
            store.put(**{NOTES: noted})
        report = report_of(fold(store.get("plan"), live), noted)
        rows = max(totals.rows, self.progress.rows)
        sealed = store.get(SEALED) if status != "drained" else None
        return Summary(
            status=status,
            rows=rows,
            ok=totals.rows - totals.failed,
            failed=totals.failed,
            resumed=resumed,
            prompt_tokens=totals.prompt_tokens,
            computed_prompt_tokens=int(live.get("computed_prompt_tokens", 0)),
            recomputed_tokens=int(live.get("recomputed_tokens", 0)),
            output_tokens=totals.output_tokens,
            preemptions=int(live.get("preemptions", 0)),
            steps=int(live.get("steps", 0)),
            drafted_tokens=int(live.get("drafted_tokens", 0)),
            accepted_tokens=int(live.get("accepted_tokens", 0)),
            forced_tokens=int(live.get("forced_tokens", 0)),
            ended_by_length=totals.cut,
            seconds={name: round(value, 4) for name, value in self.progress.seconds.items()},
            errors=totals.errors,
            warnings=self._warnings(totals),
            output=readable(self.spec.output),
            sha256=sealed["sha256"] if sealed else None,
            left=rows - totals.rows,
            starved_seconds=round(self.progress.starved_seconds, 4),
            first_token_seconds=self._first_token(),
            **self._unfinished(store),
            against_plan=report["figures"],
            exact=report["exact"],
            lossy=tuple(report["lossy"]),
            notes=tuple(report["notes"]),
            spent=add_spent(store, self.progress.seconds, self.spec.price, self.neighbours.text()),
        )

    def _warnings(self, totals: Totals) -> tuple[str, ...]:
        open_ended = self._execution.open_ended if self._execution else 0
        return warnings_of(totals, self._notes, open_ended, self.progress.stats().lost_processes)

    def _unfinished(self, store: JobStore) -> dict[str, Any]:
        """What became of rows that are not done, by the names of Summary."""
        rows, tokens = store.kept()
        if self._execution is None:
            return {"kept_rows": rows, "kept_tokens": tokens}
        lost, keeps = self._execution.discarded_tokens, self._execution.keeps_unfinished
        return {"kept_rows": rows, "kept_tokens": tokens, "discarded_tokens": lost, "keeps_unfinished": keeps}

    def _first_token(self) -> float | None:
        """Seconds from `began` to the first token of this run; None when there was none."""
        engine = None if self._execution is None else self._execution.engine
        return None if engine is None or engine.first_token is None else round(engine.first_token - self.began, 4)

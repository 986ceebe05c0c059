"""One batch job from file to file: read, run, commit, write; resumed where an earlier run of it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from umbel.errors import InputError, UmbelError, UsageError
from umbel.ir.report import Stats
from umbel.ir.request import Output
from umbel.ir.workload import Workload
from umbel.jobs.answers import Renderer
from umbel.jobs.failpoints import FailHook, no_failpoint
from umbel.jobs.fingerprint import job_key
from umbel.jobs.paths import SEALED, check_output, check_paths, remove_store, store_path
from umbel.jobs.prepare import Prepared, TextEncoder, prepare
from umbel.jobs.progress import Progress
from umbel.jobs.rows import ReadNotes, ReadOptions
from umbel.jobs.signals import Drain, StopSignal
from umbel.jobs.sink import digest_file, place_output, write_output
from umbel.jobs.source import Source
from umbel.jobs.store import JobStore, Result
from umbel.jobs.summary import Summary, warnings_of


class Tokenizer(TextEncoder, Protocol):
    """What a job needs of a tokenizer."""

    def decode_batch(self, rows: Sequence[Sequence[int]], *, skip_special_tokens: bool = True) -> list[str]:
        """The text of each list of ids."""


class Engine(Protocol):
    """What a job needs of `umbel.api.LLM`."""

    def execute(self, workload: Workload) -> Iterator[Output]:
        """Outputs of the workload's rows as they finish; closing the iterator abandons the rest."""

    def stats(self) -> Stats:
        """Live totals."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What to run. `identity` is the job's fingerprint, `model` the name in OpenAI answers, `width` and `context` the
    model's vocabulary and positions. `strict` runs nothing when any row is at fault; `fresh` forgets an earlier run."""

    input: Path
    output: Path
    options: ReadOptions
    identity: Mapping[str, Any]
    model: str
    width: int
    context: int
    order: str = "input"
    fresh: bool = False


@dataclass(slots=True)
class Job:
    """Runs a `JobSpec`, once.

    `load_tokenizer` is given the moment that chat templates see as today: when the job was first started, so that a
    resume does not change a prompt. `load` builds the engine and is called only when there are rows to run.
    """

    spec: JobSpec
    load_tokenizer: Callable[[datetime], Tokenizer]
    load: Callable[[], Engine]
    progress: Progress = field(default_factory=Progress)
    at: FailHook = no_failpoint
    _notes: ReadNotes = field(default_factory=ReadNotes)
    _open_ended: int = 0
    _before: Mapping[str, float] = field(default_factory=dict)

    def run(self) -> Summary:
        """The whole job. Raises UmbelError; SIGTERM and Ctrl-C end it early with status "drained"."""
        check_paths(self.spec.input, self.spec.output)
        self.progress.enter("plan")
        path = store_path(self.spec.output)
        if self.spec.fresh and path.exists():
            JobStore(path).close()  # refused while another process holds it
            remove_store(path)
        store = JobStore(path, self.at)
        try:
            with StopSignal() as stop:
                return self._run(store, stop)
        except (InputError, UsageError):
            if store.is_new():
                store.close()
                remove_store(path)
            raise
        finally:
            self.progress.enter("")
            store.close()

    def _run(self, store: JobStore, stop: StopSignal) -> Summary:
        try:
            store.identify(self.spec.identity)
            in_place = check_output(store, self.spec.output, fresh=self.spec.fresh)
            if in_place and store.get(SEALED)["order"] == self.spec.order:
                return self._summary(store, "already_complete", store.totals().rows)
            resumed = self._collect(store, stop)
            self.progress.enter("write")
            self._publish(store, stop)
            return self._summary(store, "complete", resumed)
        except Drain:
            finished = store.get("finished") is not None  # the stop came in the very last moment
            return self._summary(store, "complete" if finished else "drained", 0)

    def _collect(self, store: JobStore, stop: StopSignal) -> int:
        """Bring every row into the store; returns how many were there already."""
        done = store.done()
        source = Source(self.spec.input, self.spec.options, self._notes)
        tokenizer = self.load_tokenizer(_started(store))
        prepared = prepare(source, tokenizer, self.spec.width, self.spec.context, done)
        if self.spec.options.strict and prepared.faults:
            raise InputError(_strict_message(prepared))
        self._open_ended = prepared.open_ended
        self._before = store.get("live") or {}
        resumed = store.totals()
        self.progress.rows, self.progress.done, self.progress.failed = prepared.rows, resumed.rows, resumed.failed
        renderer = Renderer(job_key(self.spec.identity), self.spec.model, partial(_token_texts, tokenizer))
        faults = (renderer.failure(row, *_name(prepared, row), error) for row, error in prepared.faults)
        self._keep(store, stop, faults)
        if len(prepared.workload):
            self._execute(store, stop, prepared, renderer)
        missing = prepared.rows - store.totals().rows
        if missing:
            raise UmbelError(f"the engine gave no answer for {missing} rows; run the same command again to retry them")
        return resumed.rows

    def _execute(self, store: JobStore, stop: StopSignal, prepared: Prepared, renderer: Renderer) -> None:
        progress, workload = self.progress, prepared.workload
        progress.enter("load")
        progress.to_run = len(workload)
        engine = self.load()
        progress.stats = engine.stats
        progress.enter("run")
        outputs = engine.execute(workload)
        try:
            self._keep(store, stop, self._rendered(outputs, prepared, renderer))
        finally:
            close = getattr(outputs, "close", None)
            if close is not None:
                close()

    def _rendered(self, outputs: Iterator[Output], prepared: Prepared, renderer: Renderer) -> Iterator[Result]:
        workload, progress = prepared.workload, self.progress
        for output in outputs:
            row = int(workload.keys[output.row])
            many = workload.params[output.row].n > 1
            yield renderer.answer(row, *_name(prepared, row), output, many=many)
            progress.ran += 1
            progress.finished_prompt_tokens += output.prompt_tokens

    def _keep(self, store: JobStore, stop: StopSignal, results: Iterator[Result]) -> None:
        """Commit results in groups; what is finished is committed also when the source fails or a stop is asked for."""
        try:
            for result in results:
                due = store.add(result)
                self.progress.done += 1
                self.progress.failed += result.code is not None
                if due:
                    with stop.shielded():
                        store.commit(self._live())
        finally:
            if not store.broken:
                store.commit(self._live())

    def _live(self) -> dict[str, float]:
        """Counters over all runs of this job."""
        stats, before = self.progress.stats(), self._before
        names = ("computed_prompt_tokens", "recomputed_tokens", "preemptions", "steps")
        return {name: before.get(name, 0) + getattr(stats, name) for name in names}

    def _publish(self, store: JobStore, stop: StopSignal) -> None:
        """Write the output from the store and put it into place; what it will be is on record before it appears."""
        part = write_output(self.spec.output, store.lines(self.spec.order), self.at)
        with stop.shielded():
            self.at("store.seal.before")
            store.put(**{SEALED: {**digest_file(part), "order": self.spec.order}})
            self.at("store.seal.after")
            place_output(part, self.spec.output, self.at)
            self.at("store.finish.before")
            store.put(finished=True)
            self.at("store.finish.after")

    def _summary(self, store: JobStore, status: str, resumed: int) -> Summary:
        self.progress.enter("")
        totals = store.totals()
        live = store.get("live") or {}
        sealed = store.get(SEALED) if status != "drained" else None
        return Summary(
            status=status,
            rows=max(totals.rows, self.progress.rows),
            ok=totals.rows - totals.failed,
            failed=totals.failed,
            resumed=resumed,
            prompt_tokens=totals.prompt_tokens,
            computed_prompt_tokens=int(live.get("computed_prompt_tokens", 0)),
            recomputed_tokens=int(live.get("recomputed_tokens", 0)),
            output_tokens=totals.output_tokens,
            preemptions=int(live.get("preemptions", 0)),
            ended_by_length=totals.cut,
            seconds={name: round(value, 4) for name, value in self.progress.seconds.items()},
            errors=totals.errors,
            warnings=warnings_of(totals, self._notes, self._open_ended),
            output=str(self.spec.output),
            sha256=sealed["sha256"] if sealed else None,
        )


def _started(store: JobStore) -> datetime:
    """When the first run of this job began."""
    if store.get("started") is None or store.is_new():
        store.put(started=datetime.now().isoformat(timespec="seconds"))
    return datetime.fromisoformat(store.get("started"))


def _token_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    return tokenizer.decode_batch([[id] for id in ids], skip_special_tokens=False)


def _name(prepared: Prepared, row: int) -> tuple[str | None, Any]:
    return prepared.names.custom_id(row), prepared.names.style(row)


def _strict_message(prepared: Prepared) -> str:
    listed = "\n  ".join(f"row {row}: {error.code}: {error.message}" for row, error in prepared.faults[:10])
    more = f"\n  ... and {len(prepared.faults) - 10} more" if len(prepared.faults) > 10 else ""
    return f"--strict: {len(prepared.faults)} of {prepared.rows} rows are at fault, nothing was run:\n  {listed}{more}"

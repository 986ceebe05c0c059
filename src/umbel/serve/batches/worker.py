"""Brings batches to their end: one thread reads files and closes what is not to run, a few run jobs side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from umbel.errors import InvalidRequest, UmbelError
from umbel.jobs.job import Job
from umbel.jobs.paths import remove_store, store_path
from umbel.jobs.read.records import ReadOptions
from umbel.jobs.signals import Cancelled, Drain, OutOfTime
from umbel.jobs.summary import Summary
from umbel.models.digest import hash_file
from umbel.serve.batches.batch_job import BatchFiles, opened_job, options_of
from umbel.serve.batches.checking import Checked, check_file, error_of
from umbel.serve.batches.control import Control
from umbel.serve.batches.desk import BATCH, FILE, Desk
from umbel.serve.batches.folder import BATCHES, new_id
from umbel.serve.batches.queue import BatchQueue, Entry
from umbel.serve.batches.records import BatchRecord, Counts, FileRecord
from umbel.serve.batches.response_lines import ANSWERS, ANY, CHAT, CHATS, ERRORS, are_in, write_chats, write_responses
from umbel.serve.batches.response_lines import URL as RESPONSES
from umbel.serve.batches.shared_engine import SharedEngine
from umbel.serve.errors import LOG, where_of
from umbel.serve.settings import ServeSettings

LOOK_SECONDS = 1.0  # between two looks at the clock while nothing is to do
_GOING = ("validating", "in_progress", "finalizing", "cancelling")


@dataclass(slots=True)
class BatchWorker:
    """Works on the batches of a desk. `engine` makes what runs the rows of an owner's job, which `look` may stop;
    `reading` is how lines are read."""

    desk: Desk
    settings: ServeSettings
    reading: ReadOptions
    engine: Callable[[Callable[[], None], str], SharedEngine]
    queue: BatchQueue = field(default_factory=BatchQueue)
    jobs: dict[str, Job] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Go on with the batches that are not done."""
        self.desk.news = lambda batch: self.queue.take_in(batch, self.desk.clock)
        for batch in self.desk.batches():
            self.queue.take_in(batch, self.desk.clock)
        acts = [(self._read_and_close, "umbel-batch-desk")]
        acts += [(self._run_jobs, f"umbel-batch-run-{i}") for i in range(self.settings.limits.store.running_batches)]
        self._threads = [threading.Thread(target=act, name=name, daemon=True) for act, name in acts]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop, and keep what rows have written: the next server goes on."""
        self.queue.close()
        for thread in self._threads:
            thread.join()

    def _read_and_close(self) -> None:
        while not self.queue.over:
            self.desk.drop_expired()
            self._with_next(lambda entry: not entry.checked or _is_stopped(entry), self._check_or_close)

    def _run_jobs(self) -> None:
        while not self.queue.over:
            self._with_next(lambda entry: entry.checked and not _is_stopped(entry), self._run)

    def _with_next(self, wanted: Callable[[Entry], bool], act: Callable[[Entry, BatchRecord], None]) -> None:
        entry = self.queue.next(wanted, LOOK_SECONDS)
        if entry is None:
            return
        try:
            act(entry, self._batch(entry.id))
        except Drain:
            pass
        except Exception as error:
            LOG.error("batch %s: %s", entry.id, where_of(error))
            self._fail(entry.id, error)
        finally:
            self.queue.put_back(entry)

    def _batch(self, id: str) -> BatchRecord:
        stored = self.desk.book.get(BATCH, id)
        assert stored is not None  # batches are not deleted
        return BatchRecord.of(stored)

    def _fail(self, id: str, error: Exception) -> None:
        message = str(error) if isinstance(error, UmbelError) else f"{type(error).__name__}: no check foresaw it"
        self.desk.move(id, "failed", _GOING, errors=(error_of("internal_error", message),))

    def _check_or_close(self, entry: Entry, batch: BatchRecord) -> None:
        if batch.status != "validating":
            self._run(entry, batch)
            return
        try:
            found = self._checked(batch, entry.control)
        except OutOfTime as stop:
            files = dict[str, FileRecord]()
            self.desk.finish(batch, "cancelled" if isinstance(stop, Cancelled) else "expired", files)
            return
        if found.errors:
            self.desk.move(batch.id, "failed", ("validating",), errors=found.errors, counts=found.counts)
        else:
            self.desk.move(batch.id, "in_progress", ("validating",), counts=found.counts)

    def _checked(self, batch: BatchRecord, control: Control) -> Checked:
        control.look()
        url = CHAT if batch.endpoint == RESPONSES else batch.endpoint  # a mixed file is looked at line by line
        reading = replace(self.reading, any_url=batch.endpoint == ANY)
        return check_file(self.prepared(batch).source, url, reading, self.desk.limits.rows, control.look)

    def _source(self, batch: BatchRecord) -> Path:
        stored = self.desk.book.get(FILE, batch.input_file_id)
        if stored is None:
            raise InvalidRequest("not_found", f"the file {batch.input_file_id} is not there any more")
        return self.desk.folder.path_of(stored["path"])

    def prepared(self, batch: BatchRecord) -> BatchFiles:
        """The files of a batch's job, of which the one that it reads is there."""
        source, folder = self._source(batch), self.desk.folder.batch_folder(batch.id)
        if not are_in(batch.endpoint):
            return BatchFiles(source, folder)
        if not (chats := folder / CHATS).exists():
            folder.mkdir(mode=0o700, exist_ok=True)
            write_chats(source, chats, batch.endpoint)
        return BatchFiles(chats, folder)

    def _run(self, entry: Entry, batch: BatchRecord) -> None:
        """Run the job of a batch to its end, or to where it is stopped, and say so."""
        files, look = self.prepared(batch), entry.control.look
        files.folder.mkdir(mode=0o700, exist_ok=True)
        asked = options_of(self.settings, self.reading, files)
        with opened_job(asked, lambda: self.engine(look, batch.owner), look, any_url=batch.endpoint == ANY) as job:
            self.jobs[batch.id] = job
            job.at = lambda name: self._note(name, batch.id, job)
            try:
                summary = job.run()
            finally:
                self.jobs.pop(batch.id, None)
        if summary.status != "drained":
            self._finish(batch.id, self._outputs(batch, files), summary)
            self._clear(files)

    def _note(self, name: str, id: str, job: Job) -> None:
        """Tell how far a job is, at one of its durable acts."""
        if name == "store.commit.after":
            self._count(id, job.progress.done, job.progress.failed)
        if name == "output.open.before":
            self.desk.move(id, "finalizing", ("in_progress",))

    def _count(self, id: str, done: int, failed: int) -> None:
        """So many rows are on disk."""
        batch = self._batch(id)
        counts = replace(batch.counts, completed=done - failed, failed=failed)
        self.desk.move(id, batch.status, (batch.status,), counts=counts)

    def _outputs(self, batch: BatchRecord, files: BatchFiles) -> dict[str, Path]:
        """The files that a job has written, as they are handed out."""
        written = {"output_file_id": files.output, "error_file_id": files.errors}
        if not are_in(batch.endpoint):
            return written
        shown = {"output_file_id": files.folder / ANSWERS, "error_file_id": files.folder / ERRORS}
        for name, path in written.items():
            write_responses(self._source(batch), path, shown[name])
        return shown

    def _finish(self, id: str, outputs: Mapping[str, Path], summary: Summary) -> None:
        """Record how a batch ended, with the files that have rows."""
        whole = summary.status in ("complete", "already_complete")
        counts = Counts(summary.rows, summary.ok, summary.rows - summary.ok)
        with self.desk.book.changing():  # so that it is not cancelled in between
            batch = self._batch(id)
            made = self._written(batch, outputs)
            if batch.status == "in_progress":
                batch = batch.now("finalizing", int(self.desk.clock()))
            status = "cancelled" if batch.status == "cancelling" else "completed" if whole else "expired"
            self.desk.finish(batch, status, made, counts=counts, figures=figures_of(summary))

    def _clear(self, files: BatchFiles) -> None:
        """Remove what a batch that has ended does not need."""
        remove_store(store_path(files.output))
        kept = {record["path"] for record in self.desk.book.all(FILE)}
        for path in files.folder.iterdir():
            name = str(path.relative_to(self.desk.folder.root))
            if name not in kept:
                self.desk.folder.remove(name)

    def _written(self, batch: BatchRecord, outputs: Mapping[str, Path]) -> dict[str, FileRecord]:
        second, kept = int(self.desk.clock()), batch.output_seconds
        expires = None if kept is None else second + kept
        found = dict[str, FileRecord]()
        for name, path in outputs.items():
            if path.exists() and (size := path.stat().st_size):
                shown = f"{batch.id}_{'output' if name == 'output_file_id' else 'error'}.jsonl"
                facts = (new_id("file-"), batch.owner, shown, "batch_output", size, hash_file(path))
                place = f"{BATCHES}/{batch.id}/{path.name}"
                found[name] = FileRecord(*facts, place, second, expires, batch.id)
        return found


def _is_stopped(entry: Entry) -> bool:
    """Whether a batch is to end without running any further."""
    control = entry.control
    return control.cancelled or control.clock() >= control.expires


def figures_of(summary: Summary) -> Mapping[str, Any]:
    """What is kept of the job of a batch: its tokens, and its figures beside those of its plan."""
    names = ("prompt_tokens", "computed_prompt_tokens", "output_tokens", "steps", "seconds", "against_plan", "exact")
    return {name: getattr(summary, name) for name in names}

"""Files and batches of a server, as its endpoints see them: made, listed, cancelled and deleted, each by its owner."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, BinaryIO

from umbel.errors import InvalidRequest
from umbel.ir.limits import refuse, shown
from umbel.serve.batches.asked import BatchAsked
from umbel.serve.batches.book import Page, RecordBook
from umbel.serve.batches.folder import RECORDS, StoreFolder, new_id
from umbel.serve.batches.limits import StoreLimits
from umbel.serve.batches.records import BatchRecord, FileRecord

FILE, BATCH = "file", "batch"
MOMENTS_AGO = 3_600  # seconds: the SDK gives up long before, with two retries of ten minutes each


@dataclass(frozen=True, slots=True)
class Asker:
    """Who sends a request: the `owner` of what it may see; `retry` says that it is sent again, for want of an answer,
    `key` is its Idempotency-Key."""

    owner: str
    retry: bool = False
    key: str | None = None


@dataclass(slots=True)
class Desk:
    """Keeps files and batches in a folder and a book. `news` is called with a batch that was made or changed; `clock`
    gives seconds since 1970."""

    folder: StoreFolder
    book: RecordBook
    limits: StoreLimits = field(default_factory=StoreLimits)
    news: Callable[[BatchRecord], None] = lambda batch: None
    clock: Callable[[], float] = time.time

    @classmethod
    def open(cls, folder: StoreFolder, limits: StoreLimits) -> Desk:
        """The desk of a folder, without what a killed server has left there. Raises UsageError."""
        folder.prepare()
        desk = cls(folder, RecordBook(folder.path_of(RECORDS)), limits)
        live = [batch.id for batch in desk.batches() if batch.is_live]
        folder.sweep([record["path"] for record in desk.book.all(FILE)], live)
        return desk

    def upload(self, asker: Asker, filename: str, purpose: str, source: BinaryIO, seconds: int | None) -> FileRecord:
        """Keep a file for `seconds` (None: until it is deleted). An upload that is sent again for want of an answer is
        kept once. Raises InvalidRequest, DiskFull."""
        if purpose != "batch":
            refuse("invalid_value", "purpose", f"purpose={shown(purpose)}: must be 'batch', the only use of files here")
        id, second = new_id("file-"), self._second()
        written = self.folder.save(f"{id}.jsonl", source)
        expires = None if seconds is None else second + seconds
        shown_as = filename.replace("\\", "/").rpartition("/")[2] or "upload.jsonl"
        sizes = (written.bytes, written.sha256, written.path)
        record = FileRecord(id, asker.owner, shown_as, purpose, *sizes, second, expires)
        with self.book.changing():
            earlier = self._earlier_file(record) if asker.retry else None
            refused = None if earlier else self._refusal(record)
            if earlier is None and refused is None:
                self.book.add(FILE, record)
                return record
        self.folder.remove(written.path)
        if refused is not None:
            raise refused
        assert earlier is not None
        return earlier

    def _refusal(self, record: FileRecord) -> InvalidRequest | None:
        if not record.bytes:
            return InvalidRequest("empty_file", "file: is empty; a batch needs a line for each request", "file")
        found = self.book.page(FILE, record.owner, None, self.limits.files)
        if found is not None and len(found.records) >= self.limits.files:
            message = f"there are {self.limits.files:,} files already, the most that a key may keep: delete some"
            return InvalidRequest("too_many_files", message, "file", 429)
        return None

    def _earlier_file(self, made: FileRecord) -> FileRecord | None:
        """The same file, kept moments ago."""
        for stored in reversed(self.book.all(FILE)):
            found = FileRecord(**stored)
            alike = (found.owner, found.filename, found.sha256) == (made.owner, made.filename, made.sha256)
            if alike and made.created_at - found.created_at <= MOMENTS_AGO:
                return found
        return None

    def file(self, asker: Asker, id: str) -> FileRecord:
        """A file of the asker. Raises InvalidRequest where there is none."""
        stored = self.book.get(FILE, id, asker.owner)
        found = None if stored is None else FileRecord(**stored)
        if found is None or (found.expires_at is not None and found.expires_at <= self.clock()):
            raise InvalidRequest("not_found", f"there is no file {shown(id)}", "file_id", 404)
        return found

    def files(self, asker: Asker, after: str | None, limit: int, purpose: str | None, *, oldest_first: bool) -> Page:
        """Files of the asker. Raises InvalidRequest for an `after` that is not there."""
        now = self.clock()

        def wanted(stored: Mapping[str, Any]) -> bool:
            lasts = stored["expires_at"] is None or stored["expires_at"] > now
            return lasts and purpose in (None, stored["purpose"])

        return _there(self.book.page(FILE, asker.owner, after, limit, oldest_first=oldest_first, wanted=wanted), after)

    def delete_file(self, asker: Asker, id: str) -> None:
        """Delete a file. Raises InvalidRequest where there is none, and while a batch needs it."""
        with self.book.changing():
            found = self.file(asker, id)
            for batch in self.batches():
                if batch.is_live and batch.input_file_id == id:
                    message = f"file {id} is in use by batch {batch.id}, which is {batch.status}: cancel it, or wait"
                    raise InvalidRequest("file_in_use", message, "file_id", 409)
            self.book.remove(FILE, id)
        self.folder.remove(found.path)

    def drop_expired(self) -> None:
        """Delete files whose time is over and that no live batch needs."""
        now, needed = self.clock(), {batch.input_file_id for batch in self.batches() if batch.is_live}
        for found in [FileRecord(**stored) for stored in self.book.all(FILE)]:
            if found.expires_at is not None and found.expires_at <= now and found.id not in needed:
                self.book.remove(FILE, found.id)
                self.folder.remove(found.path)

    def make(self, asker: Asker, asked: BatchAsked) -> BatchRecord:
        """A new batch, or the one that this very request has made already: the SDK sends it again when the answer was
        lost, which only a header shows. Raises InvalidRequest."""
        with self.book.changing():
            self.file(asker, asked.input_file_id)
            mine = [batch for batch in self.batches() if batch.owner == asker.owner]
            if (earlier := self._earlier(asker, asked, mine)) is not None:
                return earlier
            if sum(batch.is_live for batch in mine) >= self.limits.live_batches:
                message = f"{self.limits.live_batches:,} batches are not done yet, the most that a key may have: wait"
                raise InvalidRequest("too_many_batches", message, None, 429)
            second = self._second()
            times = {"created_at": second, "expires_at": second + asked.seconds}
            batch = BatchRecord(new_id("batch_"), asker.owner, **asdict(asked.terms), **times, key=asker.key)
            self.book.add(BATCH, batch)
        self.news(batch)
        return batch

    def _earlier(self, asker: Asker, asked: BatchAsked, mine: list[BatchRecord]) -> BatchRecord | None:
        for batch in reversed(mine):
            same = asked.terms.are_of(batch)
            if asker.key is not None and batch.key == asker.key:
                if same:
                    return batch
                message = f"Idempotency-Key {shown(asker.key)} was used for another batch, {batch.id}"
                raise InvalidRequest("idempotency_key_in_use", message, None, 409)
            if asker.retry and asker.key is None and same and self.clock() - batch.created_at <= MOMENTS_AGO:
                return batch
        return None

    def batch(self, asker: Asker, id: str) -> BatchRecord:
        """A batch of the asker. Raises InvalidRequest where there is none."""
        stored = self.book.get(BATCH, id, asker.owner)
        if stored is None:
            raise InvalidRequest("not_found", f"there is no batch {shown(id)}", "batch_id", 404)
        return BatchRecord.of(stored)

    def batches(self) -> list[BatchRecord]:
        """All batches, the oldest first."""
        return [BatchRecord.of(stored) for stored in self.book.all(BATCH)]

    def batch_page(self, asker: Asker, after: str | None, limit: int) -> Page:
        """Batches of the asker, the newest first. Raises InvalidRequest for an `after` that is not there."""
        return _there(self.book.page(BATCH, asker.owner, after, limit), after)

    def cancel(self, asker: Asker, id: str) -> BatchRecord:
        """Have a batch end with the rows that it has. Raises InvalidRequest where there is none, or it has ended."""
        with self.book.changing():
            batch = self.batch(asker, id)
            if batch.status in ("cancelling", "cancelled"):
                return batch
            if not batch.is_live:
                message = f"batch {id} is {batch.status}: only one that is not done can be cancelled"
                raise InvalidRequest("invalid_state", message, "batch_id", 409)
            batch = batch.now("cancelling", self._second())
            self.book.put(BATCH, batch)
        self.news(batch)
        return batch

    def move(self, id: str, status: str, allowed: tuple[str, ...], **changes: Any) -> BatchRecord | None:
        """Bring a batch to a state from one of those allowed; None where it is in another."""
        with self.book.changing():
            stored = self.book.get(BATCH, id)
            batch = None if stored is None else BatchRecord.of(stored)
            if batch is None or batch.status not in allowed:
                return None
            batch = batch.now(status, self._second(), **changes)
            self.book.put(BATCH, batch)
        self.news(batch)
        return batch

    def finish(self, batch: BatchRecord, status: str, files: Mapping[str, FileRecord], **changes: Any) -> BatchRecord:
        """End a batch, with the files that it has written, in one: by the name of the field that shows each."""
        with self.book.changing():
            for record in files.values():
                self.book.add(FILE, record)
            ids = {name: record.id for name, record in files.items()}
            ended = replace(batch.now(status, self._second(), **changes), **ids)
            self.book.put(BATCH, ended)
        self.news(ended)
        return ended

    def close(self) -> None:
        """Let another server use the store."""
        self.book.close()

    def _second(self) -> int:
        return int(self.clock())


def _there(page: Page | None, after: str | None) -> Page:
    if page is None:
        raise InvalidRequest("invalid_value", f"after={shown(after)}: there is nothing with this id", "after")
    return page

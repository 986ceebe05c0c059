"""Outputs under URIs: made on this machine, published when they are complete."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from umbel.cost.json_cache import cache_folder
from umbel.errors import DiskFull, UsageError
from umbel.jobs.remote import READ_ONLY, file_name, file_system, is_uri, public_name, said, scheme_of
from umbel.jobs.write.sink import digest_file

_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf"})
"""Where a file appears when all of it has arrived; elsewhere it gets its name then."""
_TRIED = frozenset({"s3", "s3a"})
"""Where an upload can be begun and given up, which shows whether one may write and leaves nothing behind."""


@dataclass(frozen=True, slots=True)
class RemoteOutput:
    """An output under a URI. It is made in a folder of its own on this machine, where its job's store lies too, the
    same one each time that the same URI is asked for."""

    uri: str

    @property
    def folder(self) -> Path:
        """The folder on this machine."""
        base = cache_folder() or Path(tempfile.gettempdir(), f"umbel-{os.getuid()}")
        return base / "jobs" / blake2b(self.uri.encode(), digest_size=10).hexdigest()

    @property
    def local(self) -> Path:
        """Where the output is made."""
        return self.folder / file_name(self.uri)

    def prepare(self, *, fresh: bool) -> None:
        """Make the folder. Raises UsageError for a URI that cannot be written to, or, unless `fresh`, where there is a
        file that was not published from here."""
        if not file_name(self.uri):
            raise UsageError(f"output {self.uri}: names no file")
        if scheme_of(self.uri) in READ_ONLY:
            raise UsageError(f"output {self.uri}: can be read only; give a file, or s3://, gs://, az:// or hf://")
        there = self._size() is not None
        if there and not fresh and self._record() is None:
            raise UsageError(
                f"output {self.uri}: exists, and was not published from here; choose another name, or replace it with "
                "--overwrite"
            )
        if scheme_of(self.uri) in _TRIED:
            self._try_to_write()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def publish(self) -> None:
        """Put the file that was made under its URI, unless it is there. Raises DiskFull where that fails; nothing is
        lost then."""
        facts = digest_file(self.local)
        done = {**facts, "done": True}
        if self._record() == done and self._size() == facts["bytes"]:
            return
        self._path.write_bytes(orjson.dumps({**facts, "done": False}))  # what is half there is ours
        files, path = file_system(self.uri, "output")
        try:
            self._put(files, path)
        except Exception as error:
            raise DiskFull(
                f"output {public_name(self.uri)}: cannot be published: {said(error)}; all answers are in "
                f"{self.local}: run the same command again, which only publishes them"
            ) from error
        self._path.write_bytes(orjson.dumps(done))

    def _put(self, files: Any, path: str) -> None:
        if scheme_of(self.uri) in _WHOLE:
            files.put_file(str(self.local), path)
            return
        part = f"{path}.{secrets.token_hex(4)}.part"
        try:
            files.put_file(str(self.local), part)
            files.mv(part, path)
        except BaseException:
            with suppress(Exception):
                files.rm_file(part)
            raise

    def _try_to_write(self) -> None:
        """Begin an upload and give it up: what cannot be written is known before hours of work are done for it."""
        files, path = file_system(self.uri, "output")
        try:
            file = files.open(path, "wb", autocommit=False)
            file.write(b"?")
            file.flush(force=True)
        except Exception as error:
            raise self._closed("written", error) from error
        with suppress(Exception):
            file.discard()

    def _closed(self, what: str, error: Exception) -> UsageError:
        need = "s3:PutObject, s3:GetObject and s3:ListBucket" if scheme_of(self.uri) in _TRIED else "read and write"
        return UsageError(
            f"output {public_name(self.uri)}: cannot be {what}: {said(error)}; nothing was run: mend the name, or give "
            f"these credentials what they need there ({need})"
        )

    def _size(self) -> int | None:
        """Bytes of the file under the URI, None where there is none."""
        files, path = file_system(self.uri, "output")
        files.invalidate_cache()
        try:
            return int(files.info(path)["size"])
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._closed("reached", error) from error

    @property
    def _path(self) -> Path:
        return self.folder / "published.json"

    def _record(self) -> dict[str, Any] | None:
        """Size and digest of what was published last, or was about to be, and which of the two."""
        try:
            return dict(orjson.loads(self._path.read_bytes()))
        except (OSError, ValueError):
            return None


def place_of(output: str) -> Path:
    """Where the output that was asked for under a name lies on this machine."""
    return RemoteOutput(output).local if is_uri(output) else Path(output)

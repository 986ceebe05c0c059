"""The folder of a server's files: each is written whole and flushed before it has its name, or is not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from umbel.errors import DiskFull, UsageError

FILES, BATCHES, RECORDS = "files", "batches", "records.sqlite"
_PART = ".part"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """A file that is in its place: its size and digest, and where it lies below the store."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoreFolder:
    """The folder of --store, which its owner alone can read."""

    root: Path

    def prepare(self) -> None:
        """Make what is not there yet. Raises UsageError where that cannot be."""
        try:
            for path in (self.root, self.root / FILES, self.root / BATCHES):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            why = f"{error.strerror or error}; give a folder that can be written"
            raise UsageError(f"--store {self.root}: {why}") from None
        if not os.access(self.root, os.W_OK):
            raise UsageError(f"--store {self.root}: no permission to write there")

    def path_of(self, name: str) -> Path:
        """The file of that name below the store."""
        return self.root / name

    def save(self, name: str, source: BinaryIO) -> Written:
        """Copy a file to its place; it is on disk when this returns. Raises DiskFull, and nothing is left then."""
        target = self.root / FILES / name
        part, digest, size = target.with_name(name + _PART), sha256(), 0
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as out:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    size += len(block)
                    out.write(block)
                out.flush()
                os.fsync(out.fileno())
            os.rename(part, target)
            sync_folder(target.parent)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            why = f"writing failed ({error.strerror}); free space, then send the file again"
            raise DiskFull(f"{target}: {why}") from error
        return Written(f"{FILES}/{name}", size, digest.hexdigest())

    def batch_folder(self, batch: str) -> Path:
        """Where the job of a batch has its files."""
        return self.root / BATCHES / batch

    def remove(self, name: str) -> None:
        """Delete a file, and its folder where that is empty then."""
        path = self.root / name
        with suppress(FileNotFoundError):
            path.unlink()
        if path.parent.parent == self.root / BATCHES:
            with suppress(OSError):
                path.parent.rmdir()

    def sweep(self, known: Iterable[str], live: Iterable[str]) -> None:
        """Remove what a killed server has left: files that no record names, and the folders of batches that have ended
        without files. `live`: the ids of batches that go on."""
        names, going = set(known), set(live)
        for path in [*(self.root / FILES).iterdir(), *self._of_ended(going)]:
            if str(path.relative_to(self.root)) not in names:
                self.remove(str(path.relative_to(self.root)))

    def _of_ended(self, live: set[str]) -> Iterator[Path]:
        for folder in (self.root / BATCHES).iterdir():
            if folder.name not in live and folder.is_dir():
                yield from folder.iterdir()
                with suppress(OSError):
                    folder.rmdir()


def sync_folder(path: Path) -> None:
    """Have the names in a folder on disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def new_id(kind: str) -> str:
    """A name that cannot be guessed, such as `file-...`."""
    return f"{kind}{secrets.token_hex(12)}"

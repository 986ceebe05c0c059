"""A large file before its rows are read: where they lie, which of them belong together, which ids repeat."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from umbel.errors import InputError, InvalidRequest
from umbel.jobs.read.cuts import arrange
from umbel.jobs.read.formats.jsonl import id_of
from umbel.jobs.read.formats.lines import Line
from umbel.jobs.read.scan import digest_spans, scan

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Outline:
    """The rows of a file of JSON lines.

    `offsets`: `[rows]`, where each row begins, in bytes.
    `lines`: `[rows]`, physical lines from 1.
    `ids`: `[rows]`, digests of custom ids, 0 for none.
    `order`: rows with a common beginning are neighbours in it.
    `shared`: per place in `order`, levels (of `jobs.read.scan`) that the row shares with the one before.
    `size`: the file's, in bytes.
    """

    offsets: Ints
    lines: Ints
    ids: Ints
    order: Ints
    shared: NDArray[np.uint8]
    size: int

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def of(cls, path: Path, markers: Sequence[bytes]) -> Outline:
        """Scan a file of JSON lines and order its rows."""
        found = scan(path, markers)
        order, shared = arrange(found.keys)
        return cls(found.offsets, found.lines, found.ids, order, shared, found.size)

    def n_bytes(self) -> Ints:
        """Bytes of each row, blank lines after it included."""
        return np.diff(np.append(self.offsets, self.size))

    def write(self, stream: BinaryIO) -> None:
        """Write the outline for another process."""
        stream.write(np.array([len(self), self.size], np.int64).tobytes())
        for part in (self.offsets, self.lines, self.ids, self.order, self.shared):
            stream.write(np.ascontiguousarray(part).data)

    @classmethod
    def read(cls, data: bytes) -> Outline:
        """The outline that `write` wrote. Raises ValueError when it is incomplete."""
        n, size = np.frombuffer(data, np.int64, 2).tolist()
        offsets, lines, ids, order = (np.frombuffer(data, np.int64, n, 16 + 8 * n * i) for i in range(4))
        return cls(offsets, lines, ids, order, np.frombuffer(data, np.uint8, n, 16 + 32 * n), size)


def outline(path: Path, markers: Sequence[bytes], meanwhile: Callable[[], object]) -> Outline:
    """`Outline.of` in a process of its own, so that `meanwhile` (imports, mostly) runs beside it.

    Raises InputError when the file cannot be read on.
    """
    command = [sys.executable, "-m", "umbel.jobs.read.outline", str(path), *(marker.hex() for marker in markers)]
    try:
        # In a session of its own: a Ctrl-C is for us, and we end it when we stop.
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError:
        child = None
    found = b""
    if child is not None:
        with child:
            try:
                meanwhile()
                found = child.communicate()[0]
            finally:
                child.kill()
    try:
        return Outline.read(found)
    except ValueError:  # it could not be started, or it failed: here we learn why
        try:
            return Outline.of(path, markers)
        except OSError as error:
            raise InputError(f"input {path}: reading failed: {error.strerror or error}") from error


def repeats(found: Outline, line: Callable[[int], Line], *, implicit: bool) -> dict[int, int]:
    """Rows whose custom id an earlier row has, each with the line of the first one.

    `line` gives the bytes of a row. `implicit` says that rows without an id go by their number.
    """
    ids = found.ids
    bare = np.flatnonzero(ids == 0)
    if len(bare) == len(ids):
        return {}
    if implicit and len(bare):
        names = [b"%d" % row for row in bare.tolist()]
        upto = np.cumsum(np.fromiter(map(len, names), np.int64, len(names)))
        ids = ids.copy()
        ids[bare] = digest_spans(b"".join(names), upto - np.diff(upto, prepend=0), upto)
    return _confirmed(_alike(ids), found, line, implicit=implicit)


def _alike(ids: Ints) -> Iterator[int]:
    """Rows whose digest another row has as well, in the order of the file."""
    order = np.argsort(ids, kind="stable")
    same = ids[order][1:] == ids[order][:-1]
    either = np.zeros(len(ids), bool)
    either[1:] |= same
    either[:-1] |= same
    rows = np.sort(order[either])
    yield from rows[ids[rows] != 0].tolist()


def _confirmed(rows: Iterable[int], found: Outline, line: Callable[[int], Line], *, implicit: bool) -> dict[int, int]:
    first: dict[str, int] = {}
    seen: dict[int, int] = {}
    for row in rows:
        text = line(row)
        name = None if isinstance(text, InvalidRequest) else id_of(text, row if implicit else None)
        if name is None:
            continue
        if name in first:
            seen[row] = first[name]
        else:
            first[name] = int(found.lines[row])
    return seen


def main() -> None:
    """Write the outline of a file to standard output: the body of the process that `outline` starts."""
    Outline.of(Path(sys.argv[1]), [bytes.fromhex(marker) for marker in sys.argv[2:]]).write(sys.stdout.buffer)


if __name__ == "__main__":
    main()

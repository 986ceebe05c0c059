"""A large input before its rows are read: where they lie, which of them belong together, which ids repeat."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
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
    """The rows of files of JSON lines, one behind the other.

    `offsets`: `[rows]`, where each row begins, in bytes.
    `lines`: `[rows]`, physical lines of its file from 1.
    `ids`: `[rows]`, digests of ids, 0 for none.
    `order`: rows with a common beginning are neighbours in it.
    `shared`: per place in `order`, levels (of `jobs.read.scan`) that the row shares with the one before.
    `firsts`: `[files]`, the number of the first row of each.
    `bases`: `[files + 1]`, where each file begins, in bytes, and the last one ends.
    """

    offsets: Ints
    lines: Ints
    ids: Ints
    order: Ints
    shared: NDArray[np.uint8]
    firsts: Ints
    bases: Ints

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def of(cls, paths: Sequence[Path], markers: Sequence[bytes], id_field: str = "custom_id") -> Outline:
        """Scan files of JSON lines and order their rows."""
        found = [scan(path, markers, id_field) for path in paths]
        firsts, bases = _starts([len(one) for one in found]), _starts([one.size for one in found])
        offsets = np.concatenate([one.offsets + base for one, base in zip(found, bases, strict=False)])
        lines, ids = np.concatenate([one.lines for one in found]), np.concatenate([one.ids for one in found])
        order, shared = arrange(np.concatenate([one.keys for one in found]))
        return cls(offsets, lines, ids, order, shared, firsts[:-1], bases)

    def n_bytes(self) -> Ints:
        """Bytes of each row, blank lines after it included."""
        return np.diff(np.append(self.offsets, self.bases[-1]))

    def files_of(self, rows: Ints | int) -> Ints:
        """In which file each of some rows is."""
        return np.searchsorted(self.firsts, rows, "right") - 1

    def write(self, stream: BinaryIO) -> None:
        """Write the outline for another process."""
        stream.write(np.array([len(self), len(self.firsts)], np.int64).tobytes())
        for part in (self.offsets, self.lines, self.ids, self.order, self.firsts, self.bases, self.shared):
            stream.write(np.ascontiguousarray(part).data)

    @classmethod
    def read(cls, data: bytes) -> Outline:
        """The outline that `write` wrote. Raises ValueError when it is incomplete."""
        n, files = np.frombuffer(data, np.int64, 2).tolist()
        ends = 2 + np.cumsum([n, n, n, n, files, files + 1])
        numbers = np.frombuffer(data, np.int64, int(ends[-1]))
        offsets, lines, ids, order, firsts, bases = np.split(numbers[2:], ends[:-1] - 2)
        return cls(offsets, lines, ids, order, np.frombuffer(data, np.uint8, n, 8 * int(ends[-1])), firsts, bases)


def _starts(counts: Sequence[int]) -> Ints:
    """Where each of some pieces begins when they follow one another, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(counts, np.int64))])


def outline(
    paths: Sequence[Path], markers: Sequence[bytes], meanwhile: Callable[[], object], id_field: str = "custom_id"
) -> Outline:
    """`Outline.of` in a process of its own, so that `meanwhile` (imports, mostly) runs beside it.

    Raises InputError when a file cannot be read on.
    """
    asked = [id_field, ",".join(marker.hex() for marker in markers), *map(str, paths)]
    command = [sys.executable, "-m", "umbel.jobs.read.outline", *asked]
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
            return Outline.of(paths, markers, id_field)
        except OSError as error:
            raise InputError(
                f"input {error.filename or paths[0]}: reading failed: {error.strerror or error}"
            ) from error


def repeats(
    found: Outline, line: Callable[[int], Line], *, implicit: bool, id_field: str = "custom_id"
) -> dict[int, int]:
    """Rows whose id an earlier row has, each with the first one.

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
    first: dict[str, int] = {}
    seen: dict[int, int] = {}
    for row in _alike(ids):
        text = line(row)
        name = None if isinstance(text, InvalidRequest) else id_of(text, id_field, row if implicit else None)
        if name is not None and first.setdefault(name, row) != row:
            seen[row] = first[name]
    return seen


def _alike(ids: Ints) -> Iterator[int]:
    """Rows whose digest another row has as well, in the order of the file."""
    order = np.argsort(ids, kind="stable")
    same = ids[order][1:] == ids[order][:-1]
    either = np.zeros(len(ids), bool)
    either[1:] |= same
    either[:-1] |= same
    rows = np.sort(order[either])
    yield from rows[ids[rows] != 0].tolist()


def main() -> None:
    """Write the outline of files to standard output: the body of the process that `outline` starts."""
    id_field, markers, *paths = sys.argv[1:]
    found = Outline.of(list(map(Path, paths)), [bytes.fromhex(marker) for marker in markers.split(",")], id_field)
    found.write(sys.stdout.buffer)


if __name__ == "__main__":
    main()

"""Bytes to physical lines: plain, gzip or Zstandard, bounded in length, numbered as an editor would."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeAlias

from umbel.errors import InputError, InvalidRequest, UsageError
from umbel.ir.limits import MAX_LINE_BYTES
from umbel.jobs.read.formats.unpack import PACKED, Unpacked

BOM = b"\xef\xbb\xbf"
_BLANK = 32  # no white space of ASCII is above
_NEWLINE = 0x0A

Line: TypeAlias = bytes | InvalidRequest
"""A physical line with its end, or why it cannot be read."""


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """An input open for reading, unpacked where its content (not its name) says so. Raises UsageError, InputError."""
    try:
        raw = open(path, "rb")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UsageError(f"input {path}: {error.strerror or error}") from error
    with raw:
        head, suffix = raw.peek(8), path.suffix.lower()
        packing = next((one for one in PACKED.values() if head.startswith(one.magic)), None)
        if packing is not None:
            with io.BufferedReader(packing.unpack(raw), 1 << 18) as unpacked:
                yield unpacked
        elif suffix in PACKED and head:
            raise InputError(f"input {path}: named {suffix} but not a {PACKED[suffix].unpack.packing} file")
        else:
            yield raw


def is_packed(stream: BinaryIO) -> bool:
    """Whether an open input is being unpacked while it is read."""
    return isinstance(getattr(stream, "raw", None), Unpacked)


def damage_of(stream: BinaryIO) -> str | None:
    """What is wrong with a packed input that was read up to where it is damaged; None when it is sound."""
    raw = getattr(stream, "raw", None)
    if not isinstance(raw, Unpacked) or raw.damage is None:
        return None
    return f"{raw.packing} file is damaged or cut here ({raw.damage})"


def room_behind(path: Path, n_bytes: int) -> int:
    """How much of so many bytes a file leaves, counted after unpacking; below 0 when it has more."""
    with open_bytes(path) as stream:
        if not is_packed(stream):
            return n_bytes - path.stat().st_size
        while n_bytes >= 0 and (data := stream.read(1 << 18)):
            n_bytes -= len(data)
        return n_bytes


def read_lines(path: Path, cap: int = MAX_LINE_BYTES, *, blank: bool = False) -> Iterator[tuple[int, Line]]:
    r"""Physical lines with their numbers from 1, line ends included; of a line of more than `cap` bytes the error.

    Only "\n" ends a line. At most about twice `cap` bytes are held at a time, however long a line is. A byte order mark
    at the start is dropped. Where a packed file is damaged the last item is the error, in place of the line that the
    damage cuts and all after it; InputError is raised when no line came before. Unless `blank`, blank lines may be
    passed over.
    """
    with open_bytes(path) as stream:
        yield from lines_in(stream, str(path), cap, blank=blank)


def lines_in(
    stream: BinaryIO, name: str, cap: int = MAX_LINE_BYTES, *, blank: bool = False
) -> Iterator[tuple[int, Line]]:
    """The lines of an input that is open, as `read_lines` gives them; `name` is what messages call it."""
    try:
        lines = _bounded(stream, cap, blank=blank)
        for number, line in islice(lines, 1):
            yield number, line.removeprefix(BOM) if isinstance(line, bytes) else line
        yield from lines
    except InputError as error:
        raise InputError(f"input {name}: {error}") from None
    except OSError as error:
        raise InputError(f"input {name}: reading failed: {error.strerror or error}") from error


def _bounded(stream: BinaryIO, cap: int, *, blank: bool) -> Iterator[tuple[int, Line]]:
    number, readline = 0, stream.readline
    while line := readline(cap + 1):
        number += 1
        found: Line = line
        if line[-1] != _NEWLINE:
            ended = False
            if len(line) > cap:
                line = b""  # its memory is free before the rest is read
                ended, found = _skip_line(stream), too_long(number, cap)
            if not ended and damage_of(stream) is not None:
                number -= 1
                break
        yield number, found
        if not blank and found is line and line[0] <= _BLANK and line.isspace():
            number += _skip_blank_lines(stream)
    if (damage := damage_of(stream)) is not None:
        if not number:
            raise InputError(f"the {damage}, before its first line ends")
        message = f"line {number + 1}: the {damage}; what follows is lost"
        yield number + 1, InvalidRequest("damaged_input", message)


def _skip_line(stream: BinaryIO) -> bool:
    """Pass over the rest of a line; returns whether it ended."""
    part = b""
    while part[-1:] != b"\n":
        part = stream.readline(1 << 18)
        if not part:
            return False
    return True


def _skip_blank_lines(stream: BinaryIO) -> int:
    """Pass over the blank lines that follow one, as there may be billions in a small packed file; returns how many."""
    skipped = 0
    while ahead := stream.peek(1):  # type: ignore[attr-defined]  (every stream here is buffered)
        blank = len(ahead) - len(ahead.lstrip())
        end = ahead.rfind(b"\n", 0, blank) + 1
        skipped += ahead.count(b"\n", 0, end)
        stream.read(end)
        if end < len(ahead):
            break
    return skipped


def too_long(line: int, cap: int = MAX_LINE_BYTES) -> InvalidRequest:
    """The error of a physical line that was skipped because of its length."""
    return InvalidRequest("line_too_long", f"line {line}: longer than {cap:,} bytes, skipped")

"""A quick pass over a file of JSON lines: where each row lies, how its prompt begins, which ids were given before.

Rows are not parsed unless they must be. A million rows of 300 bytes take about a second, so that a job knows which rows
belong together before the first of them is tokenised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from umbel.ir.limits import MAX_LINE_BYTES
from umbel.jobs.read.formats.jsonl import id_of
from umbel.jobs.read.formats.lines import BOM

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

# Bytes of a prompt's beginning whose digests make up a row's key, in words of 8 bytes, each about 1.4 times the last.
# The first stands twice, as 16 bits alone are met by chance among many rows that share nothing.
LEVELS = (6, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
BLOCK_BYTES = 4 * 2**20
_WORD = 8
_MIX = np.uint64(0x9E3779B97F4A7C15)
_NEWLINE = 0x0A
_QUOTE, _BACKSLASH = 0x22, 0x5C


@dataclass(frozen=True, slots=True)
class Scan:
    """The rows of a file (lines that are not blank).

    `offsets`: `[rows]`, in bytes.
    `lines`: `[rows]`, physical lines from 1.
    `keys`: `[rows, 16]` uint16, digests of ever longer beginnings of the prompt, 0 where it is shorter.
    `ids`: `[rows]`, digests of the custom ids (0: none), by which repeated ids are found.
    `size`: the file's, in bytes.
    """

    offsets: Ints
    lines: Ints
    keys: NDArray[np.uint16]
    ids: Ints
    size: int

    def __len__(self) -> int:
        return len(self.offsets)


def scan(path: Path, markers: Sequence[bytes], id_field: str = "custom_id", cap: int = MAX_LINE_BYTES) -> Scan:
    """Scan a file of JSON lines. A row's key starts at the first of the `markers` (up to 8 bytes each) in its line; the
    `id_field` has its id."""
    tables = _Tables(id_field)
    with open(path, "rb") as stream:
        lines = 0
        for base, data in _blocks(stream, cap):
            lines += tables.add(base, data, lines, markers, cap)
        size = stream.tell()
    return tables.finish(size)


def _blocks(stream: BinaryIO, cap: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines, some megabytes at a time, with the offset of the first; of an overlong line only a part."""
    base = 0
    while data := stream.read(BLOCK_BYTES):
        if data[-1] != _NEWLINE:
            data += stream.readline(cap + 1)
        yield base, data
        while data and data[-1] != _NEWLINE:  # an overlong line, or the end of the file
            data = stream.readline(BLOCK_BYTES)
        base = stream.tell()


@dataclass(slots=True)
class _Tables:
    id_field: str
    offsets: list[Ints] = field(default_factory=list)
    lines: list[Ints] = field(default_factory=list)
    keys: list[NDArray[np.uint16]] = field(default_factory=list)
    ids: list[Ints] = field(default_factory=list)

    def add(self, base: int, data: bytes, lines: int, markers: Sequence[bytes], cap: int) -> int:
        """Add a block of whole lines; returns how many physical lines it holds."""
        text = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(text == _NEWLINE)
        if not len(ends) or ends[-1] != len(data) - 1:
            ends = np.append(ends, len(data))
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
        starts[0] = len(BOM) if base == 0 and data.startswith(BOM) else 0
        kept = _not_blank(data, text, starts, ends)
        starts, ends, numbers = starts[kept], ends[kept], np.flatnonzero(kept) + lines + 1
        overlong = ends - starts > cap
        ids = _digest_ids(data, text, starts, ends, self.id_field)
        ids[overlong] = 0
        self.offsets.append(starts + base)
        self.lines.append(numbers)
        self.keys.append(_keys(data, text, starts, ends, markers))
        self.ids.append(ids)
        return len(kept)

    def finish(self, size: int) -> Scan:
        """The scan of all blocks together."""
        none = np.zeros(0, np.int64)
        offsets, lines, ids = (np.concatenate([none, *part]) for part in (self.offsets, self.lines, self.ids))
        keys = np.concatenate([np.zeros((0, len(LEVELS)), np.uint16), *self.keys])
        return Scan(offsets, lines, keys, ids, size)


def _not_blank(data: bytes, text: Bytes, starts: Ints, ends: Ints) -> NDArray[np.bool_]:
    kept = ends > starts
    first = text[np.minimum(starts, len(text) - 1)]
    for i in np.flatnonzero(kept & (first <= 0x20)).tolist():  # the few lines that begin with a blank
        kept[i] = bool(data[starts[i] : ends[i]].strip())
    return kept


def _digest_ids(data: bytes, text: Bytes, starts: Ints, ends: Ints, id_field: str) -> Ints:
    """Digests of the ids. Lines are parsed only where the bytes alone may mislead: ids that are not the first key or no
    texts, keys given twice, keys or ids that may be written with escapes."""
    key = orjson.dumps(id_field)
    n_ids = data.count(key)
    escaped = b"\\" in data and (b"\\u" in data or b"/" in key)
    if not escaped and not n_ids:
        return np.zeros(len(starts), np.int64)
    if not escaped and n_ids == len(starts):
        spans = _first_ids(data, text, starts, ends, key)
        if spans is not None:
            return digest_spans(data, *spans)
    names = [id_of(data[start:end], id_field) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    joined = [b"" if name is None else name.encode() for name in names]
    upto = np.cumsum(np.fromiter(map(len, joined), np.int64, len(joined)))
    return digest_spans(b"".join(joined), np.concatenate([np.zeros(1, np.int64), upto[:-1]]), upto)


def _first_ids(data: bytes, text: Bytes, starts: Ints, ends: Ints, key: bytes) -> tuple[Ints, Ints] | None:
    """Where the ids lie if each row begins with one in the same way and none is written with escapes, else None."""
    begin = re.compile(rb'\{%s\s*:\s*"' % re.escape(key)).match(data, int(starts[0]))
    if begin is None or int((ends - starts).min()) <= len(begin[0]) + _WORD:
        return None
    for i, byte in enumerate(begin[0]):
        if not (text[starts + i] == byte).all():
            return None
    words = np.ndarray((len(data) - _WORD + 1,), np.uint64, data, 0, (1,))
    at = starts + len(begin[0])
    upto = np.zeros_like(at)
    rows, here = np.arange(len(at)), at.copy()
    while len(rows):
        if (here + _WORD > ends[rows]).any():
            return None  # a row ends soon after its id: nothing that is worth a quick way
        quote = _first_byte(words[here], _QUOTE)
        if (_first_byte(words[here], _BACKSLASH) < quote).any():
            return None
        found = quote < _WORD
        upto[rows[found]] = here[found] + quote[found]
        rows, here = rows[~found], here[~found] + _WORD
    return at, upto


def _first_byte(words: NDArray[np.uint64], byte: int) -> Ints:
    """The place of the first such byte in each word of 8 bytes, 8 where there is none."""
    ones, highs = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
    differs = words ^ (ones * np.uint64(byte))
    marks = (differs - ones) & ~differs & highs  # the lowest bit set is in the first byte that is zero
    lowest = marks & (~marks + np.uint64(1))
    place = np.zeros(len(words), np.int64)
    for i in range(1, _WORD):
        place += lowest >= np.uint64(1 << 8 * i)
    place[marks == 0] = _WORD
    return place


def digest_spans(data: bytes, starts: Ints, ends: Ints) -> Ints:
    """A digest of each span of bytes, never 0 but for an empty one."""
    padded = data + bytes(_WORD)
    words = np.ndarray((len(data) + 1,), np.uint64, padded, 0, (1,))
    digest = (ends - starts).astype(np.uint64) * _MIX
    rows, at, left = np.arange(len(starts)), starts, ends - starts
    while True:
        more = left > 0
        rows, at, left = rows[more], at[more], left[more]
        if not len(rows):
            break
        unused = np.uint64(8) * np.maximum(_WORD - left, 0).astype(np.uint64)
        mixed = (digest[rows] ^ (words[at] << unused)) * _MIX
        digest[rows] = mixed ^ (mixed >> np.uint64(29))
        at, left = at + _WORD, left - _WORD
    return np.where(ends > starts, digest | np.uint64(1), np.uint64(0)).view(np.int64)


def _keys(data: bytes, text: Bytes, starts: Ints, ends: Ints, markers: Sequence[bytes]) -> NDArray[np.uint16]:
    """Digests of the first bytes from the marker on, one per level that the line is long enough for."""
    keys = np.zeros((len(starts), len(LEVELS)), np.uint16)
    if len(data) < _WORD or not len(starts):
        return keys
    words = np.ndarray((len(data) - _WORD + 1,), np.uint64, data, 0, (1,))
    at = _find_markers(words, starts, ends, markers)
    rows, digest, done = np.arange(len(starts)), np.full(len(starts), _MIX), 0
    for level, upto in enumerate(LEVELS):
        long = at + (upto - done) * _WORD <= ends[rows]
        if not long.all():
            rows, at, digest = rows[long], at[long], digest[long]
            if not len(rows):
                break
        for _ in range(done, upto):
            digest ^= words[at]
            digest *= _MIX
            digest ^= digest >> np.uint64(29)
            at += _WORD
        done = upto
        spread = (digest ^ (digest >> np.uint64(32))) * _MIX
        keys[rows, level] = (spread >> np.uint64(48 - 16 * (level % 2))).astype(np.uint16) | np.uint16(1)
    return keys


def _find_markers(words: NDArray[np.uint64], starts: Ints, ends: Ints, markers: Sequence[bytes]) -> Ints:
    """Per row the place of the first marker that is in it at all, else its start."""
    at = starts.copy()
    lacking = np.ones(len(starts), bool)
    for marker in markers:
        if not lacking.any():
            break
        mask = np.uint64((1 << 8 * len(marker)) - 1)
        wanted = np.uint64(int.from_bytes(marker, "little"))
        places = np.flatnonzero((words if len(marker) == _WORD else words & mask) == wanted)
        rows = np.searchsorted(starts, places, "right") - 1
        first = np.ones(len(rows), bool)
        first[1:] = rows[1:] != rows[:-1]
        rows, places = rows[first], places[first]
        new = lacking[rows] & (rows >= 0)
        at[rows[new]] = places[new]
        lacking[rows[new]] = False
    return at

"""Inputs that are refused as a whole: no row can run, which is a mistake of the job rather than of its rows, or one
cannot and --strict was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from umbel.errors import InputError
from umbel.jobs.read.prepare import Prepared, Window
from umbel.jobs.read.records import InputRow, ReadNotes, described, strict_message
from umbel.jobs.read.windows import Feed

LEAST_ROWS = 10  # fewer are answered by their error rows


def unless_alike(windows: Iterator[Window], name: str, done: bytes | bytearray) -> Iterator[Window]:
    """The windows of an input. Raises InputError when the first one has at least 10 rows, all with the same error, and
    `done` flags none of an earlier run."""
    for number, window in enumerate(windows):
        if not number and not any(done):
            _check(window, name)
        yield window


def unless_faulty(feed: Feed, notes: ReadNotes) -> Iterator[Window]:
    """The windows of an input, after every row has been checked. Raises InputError when one is at fault. Of `notes`,
    what is noted again when rows are read again is left out."""
    faults: list[InputRow] = []
    kept: list[Window] = []
    for window in feed.windows():
        faults += window.faults
        if feed.whole:
            kept.append(window)
    if faults:
        raise InputError(strict_message(faults, feed.rows or 0))
    if feed.whole:
        return iter(kept)
    notes.clear()
    return feed.windows()


def _check(window: Window, name: str) -> None:
    errors = [row.error for row in window.faults if row.error is not None]
    if window.runnable or len(errors) < LEAST_ROWS or len({error.code for error in errors}) > 1:
        return
    first = window.faults[0]
    raise InputError(
        f"input {name}: all of the first {window.rows:,} rows fail with {errors[0].code}, so nothing was run; "
        f"{first.where}: {errors[0].message.removeprefix(f'line {first.line}: ')}"
    )


def check_any(prepared: Prepared, name: str) -> None:
    """Raise InputError when no row of an input can run, with each kind of fault once."""
    if prepared.faults and len(prepared.faults) == prepared.rows:
        rows = f"none of its {prepared.rows:,} rows can" if prepared.rows > 1 else "its only row cannot"
        raise InputError(
            "\n  ".join([f"input {name}: {rows} run, so there is nothing to plan:", *kinds(prepared.faults)])
        )


def kinds(faults: Sequence[InputRow]) -> list[str]:
    """A line for each kind of fault, the most frequent first: where it was met first, what it is, how many rows."""
    first, counts = dict[str, InputRow](), Counter[str]()
    for row in faults:
        if row.error is not None:
            first.setdefault(row.error.code, row)
            counts[row.error.code] += 1
    return [
        described(first[code]) + (f" ({n - 1:,} more such row{'' if n == 2 else 's'})" if n > 1 else "")
        for code, n in counts.most_common()
    ]

"""Inputs of which every row fails in the same way, which is a mistake of the job rather than of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from umbel.errors import InputError
from umbel.jobs.read.prepare import Window

LEAST_ROWS = 10  # fewer are answered by their error rows


def unless_alike(windows: Iterator[Window], path: Path, done: bytes | bytearray) -> Iterator[Window]:
    """The windows of an input. Raises InputError when the first one has at least 10 rows, all with the same error, and
    `done` flags none of an earlier run."""
    for number, window in enumerate(windows):
        if not number and not any(done):
            _check(window, path)
        yield window


def _check(window: Window, path: Path) -> None:
    errors = [row.error for row in window.faults if row.error is not None]
    if window.runnable or len(errors) < LEAST_ROWS or len({error.code for error in errors}) > 1:
        return
    first = window.faults[0]
    raise InputError(
        f"input {path}: all of the first {window.rows:,} rows fail with {errors[0].code}, so nothing was run; "
        f"line {first.line}: {errors[0].message.removeprefix(f'line {first.line}: ')}"
    )

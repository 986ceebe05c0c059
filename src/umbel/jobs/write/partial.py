"""The output of a job that ended before its last row: the rows that are done, and an error line for each one that is
not."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import chain

from umbel.ir.request import RowError
from umbel.jobs.read.source import Source
from umbel.jobs.read.source_files import SourceFiles
from umbel.jobs.signals import Cancelled
from umbel.jobs.store import JobStore
from umbel.jobs.write.answers import Renderer

NOT_RUN = RowError(
    "budget_exceeded",
    "not run: the budget of the job was spent before this row; run the same command again to go on",
    type="budget_exceeded",
    status=429,
)
NOT_WANTED = RowError("cancelled", "not run: the batch was cancelled before this row", type="cancelled", status=409)
_ROW_SECONDS = 2e-5  # to read a row that was not run and to write its line
_MOST_SHARE = 0.25


def reason_of(stop: BaseException) -> RowError:
    """Why the rows were not run that a stop has left."""
    return NOT_WANTED if isinstance(stop, Cancelled) else NOT_RUN


def partial_lines(
    store: JobStore, source: Source | SourceFiles, renderer: Renderer, order: str, reason: RowError = NOT_RUN
) -> Iterator[tuple[int, bytes]]:
    """The lines of all rows of the input by row, the committed ones first when `order` is that of finishing.

    A row that cannot be run has its own error already, as far as reading it shows; the others have `reason`. None of
    these lines are kept in the store.
    """
    done, lacking = store.lines(order), _lacking(store.done(), source, renderer, reason)
    yield from heapq.merge(done, lacking, key=lambda item: item[0]) if order == "input" else chain(done, lacking)


def _lacking(
    done: bytearray, source: Source | SourceFiles, renderer: Renderer, reason: RowError
) -> Iterator[tuple[int, bytes]]:
    for row in source.rows():
        if row.row >= len(done) or not done[row.row]:
            yield row.row, renderer.failure(row.head, row.error or reason).line


def writing_seconds(rows: int, seconds: float) -> float:
    """How long before a deadline, `seconds` after the start, to stop so that the output is written by then."""
    return min(rows * _ROW_SECONDS, seconds * _MOST_SHARE)

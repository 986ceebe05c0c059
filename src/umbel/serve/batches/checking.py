"""What is wrong with the lines of a batch's file, as OpenAI says it of a batch that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umbel.errors import EmptyInput, UmbelError
from umbel.jobs.read.formats.jsonl import find_endpoint
from umbel.jobs.read.records import InputRow, ReadNotes, ReadOptions
from umbel.jobs.read.source import Source
from umbel.serve.batches.records import Counts

LISTED = 100  # errors of one batch
_OF_LINES = frozenset(
    {
        *("invalid_json_line", "line_too_long", "damaged_input", "duplicate_custom_id", "invalid_method"),
        *("invalid_url", "url_mismatch", "invalid_body", "model_not_found"),
    }
)
_CALLED = {"model_not_found": "model_mismatch"}  # as OpenAI calls it here
_PARTS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True, slots=True)
class Checked:
    """The rows of a file, and what is wrong with its lines: nothing where it can be run."""

    rows: int
    errors: tuple[Mapping[str, Any], ...]

    @property
    def counts(self) -> Counts:
        """The counts of a batch that begins."""
        return Counts(total=self.rows)


def check_file(
    path: Path, endpoint: str, options: ReadOptions, most: int, look: Callable[[], None] = lambda: None
) -> Checked:
    """Read a whole file as its job will, up to `most` rows. A fault in the envelope of a line fails the batch; one in
    what is asked of the model is the error of its row. `look` is called now and then, and may raise."""
    try:
        source = Source(path, options, ReadNotes())
        found = find_endpoint(path)
        if found is None or (found != endpoint and not options.any_url):
            next(source.rows())  # there is one
            return Checked(0, (_wrong_endpoint(found, endpoint),))
        return _read(source, most, look)
    except EmptyInput:
        return Checked(0, (error_of("empty_file", "the file has no requests: give a JSON object on each line"),))
    except UmbelError as error:
        return Checked(0, (error_of("invalid_file", str(error)),))


def _read(source: Source, most: int, look: Callable[[], None]) -> Checked:
    rows, errors = 0, list[Mapping[str, Any]]()
    for batch in source.batches():
        look()
        rows += len(batch)
        if rows > most:
            message = f"the file has more than {most:,} requests, the most of a batch: split it"
            return Checked(rows, (error_of("too_many_tasks", message),))
        errors += faults(batch)[: LISTED - len(errors)]
    return Checked(rows, tuple(errors))


def faults(rows: Iterable[InputRow]) -> list[Mapping[str, Any]]:
    """The errors of a batch that some of its rows are at fault for."""
    found = [(row, row.error) for row in rows if row.error is not None]
    return [
        error_of(_CALLED.get(error.code, error.code), error.message, row.line, error.param)
        for row, error in found
        if error.code in _OF_LINES or error.param in _PARTS
    ]


def error_of(code: str, message: str, line: int | None = None, param: str | None = None) -> dict[str, Any]:
    """An error of a batch, as OpenAI has them."""
    return {"code": code, "line": line, "message": message, "param": param}


def _wrong_endpoint(found: str | None, endpoint: str) -> dict[str, Any]:
    if found is None:
        why = "the first line is no request: it needs custom_id, method, url and body"
        return error_of("invalid_request_line", why, 1)
    why = f"the requests of the file go to {found}, and the batch is for {endpoint}"
    return error_of("url_mismatch", why, 1, "url")

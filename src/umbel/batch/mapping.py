"""`umbel.map`: a table in memory in, the same table with columns of answers out; the work between them is a job."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from umbel.batch.call import in_names_of_python, run
from umbel.batch.frames import TableFrame, frame_of
from umbel.errors import EmptyInput, JobStopped, UsageError
from umbel.ir.body import EFFECTIVE_FIELDS, SAMPLING_COLUMNS
from umbel.jobs.read.formats.branches import FIELDS
from umbel.jobs.read.formats.keeping import renamed
from umbel.jobs.read.formats.template import Template
from umbel.jobs.read.records import ANSWER_NAMES
from umbel.jobs.write.formats.named import format_of

ALWAYS = ("text", "finish_reason", "error")
"""Columns that are there also where all their cells are null."""
_PROMPTS = ("prompt", "messages")
_UNFIT: Mapping[str, str] = {
    "errors": "rows that failed stay in their place, with their error",
    "order": "rows stay in their order",
}


def map(
    data: Any, prompt: str | None = None, *, model: str, out: str | os.PathLike[str] | None = None, **options: Any
) -> Any:
    """Ask a model about every row of a table, and return the table with the answers as columns behind its own.

    `data` is a DataFrame of pandas or polars, a pyarrow.Table (or what gives one through Arrow's stream interface), a
    datasets.Dataset or a list of dicts; what is returned is of the same kind, its rows and pandas' index in their
    order. `prompt` builds prompts from columns: "Classify: {text}"; without it a column `prompt` or `messages` has
    them. `options` are those of `umbel run`, as for `umbel.run`.

    The answers are the columns `text`, `finish_reason`, `token_ids`, `usage`, `error` (null where there is none) and
    what was asked for besides; a column of the table that is named so gets `input_` in front, as in files.

    The rows are run as a durable job. With `out`, the name of a Parquet or Arrow file, that file and its store stay:
    after a crash or a stop the same call continues, and a complete one is not run again. Without it nothing is kept.
    Raises what `umbel.run` raises.
    """
    for name, why in _UNFIT.items():
        if options.get(name) is not None:
            raise UsageError(f"{name}: {why}; umbel.run has this option")
    frame = frame_of(data)
    if not len(frame):
        raise EmptyInput("the table has no rows")
    with in_names_of_python(), _files(frame, out) as (source, target):
        frame.write(source, _wanted(frame, prompt, options, every=out is not None))
        kept = options if out is not None else {**options, "keep": "none"}
        try:
            run(source, target, model=model, prompt=prompt, **kept)
        except JobStopped as stop:
            raise stop if out is not None else _lost(stop) from None
        answers = _answers(target, also=_PROMPTS if options.get("include_prompt") and prompt is not None else ())
    names = renamed(frame.names(), frozenset(answers.column_names))
    return frame.extended(dict(names), answers)


def _wanted(frame: TableFrame, prompt: str | None, options: Mapping[str, Any], *, every: bool) -> frozenset[str]:
    """The columns that the job needs, or `every` one. Raises UsageError where there are none to make prompts from."""
    names = frame.names()
    if prompt is not None:
        template = Template.parse(prompt)
        template.check_columns(names)
        needed = SAMPLING_COLUMNS | template.columns
    elif {"prompt", "messages"}.isdisjoint(names):
        raise UsageError(f"no column 'prompt' or 'messages': give prompt='... {{column}}', from {', '.join(names)}")
    else:
        needed = EFFECTIVE_FIELDS | FIELDS | {"prompt", "messages", "model"}
    if isinstance(system := options.get("system"), str):
        needed |= Template.parse(system, "system", constant=True).columns
    return frozenset(names) if every else frozenset({*needed, "custom_id", str(options.get("id"))})


@contextmanager
def _files(frame: TableFrame, out: str | os.PathLike[str] | None) -> Iterator[tuple[Path, Path]]:
    """The input of the job, which is temporary, and its output. Raises UsageError for an `out` that cannot be."""
    target = None if out is None else Path(out)
    if target is not None and not format_of(target, "out").is_typed:
        raise UsageError(f"out={str(target)!r}: answers are read back with their types: .parquet, .arrow or .feather")
    if target is not None and not target.parent.is_dir():
        raise UsageError(f"out={str(target)!r}: there is no directory {target.parent}")
    with tempfile.TemporaryDirectory(prefix=".umbel-map-", dir=None if target is None else target.parent) as name:
        folder = Path(name)
        yield folder / f"input{frame.suffix}", target or folder / "output.parquet"


def _lost(stop: JobStopped) -> JobStopped:
    return JobStopped(stop.summary, "stopped on request, with nothing kept: out='answers.parquet' keeps what is done")


def _answers(path: Path, also: Collection[str]) -> pa.Table:
    """The columns of answers in an output, those without a value aside, and columns named `also`."""
    is_parquet = format_of(path).kind == "parquet"
    table = (pyarrow.parquet if is_parquet else pyarrow.feather).read_table(path)
    known = {*also, *ANSWER_NAMES} if "text" in table.column_names else {"id", "response", "error"}
    filled = (name for name in table.column_names if name in ALWAYS or table.column(name).null_count < len(table))
    return table.select([name for name in filled if name in known and name != "custom_id"])

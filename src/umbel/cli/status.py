"""`umbel status`, `umbel export`, `umbel clean`: looking at a job, also while it runs, and tidying up behind it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from umbel.batch.declared import Argument, Option

_OUT = Argument(metavar="OUT", help="The output of a run.")


def status_command(
    output: Annotated[str, _OUT],
    as_json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say how far the job of OUT is, whether it runs, was stopped or was killed.

    Exit codes: 0, 2 usage.
    """
    from umbel.jobs.status import read_status
    from umbel.jobs.write.remote_output import place_of

    status = read_status(place_of(output))
    print(json.dumps(status, indent=2) if as_json else _text(status))


def export_command(
    output: Annotated[str, _OUT],
    target: Annotated[Path | None, Option("-o", "--output", help="A new file; without it, to stdout.")] = None,
    order: Annotated[Literal["input", "finish"], Option(help="Order of the rows.")] = "input",
) -> None:
    """Write the answers that the job of OUT has so far, also while it runs.

    Exit codes: 0, 2 usage.
    """
    from umbel.jobs.write.export import export
    from umbel.jobs.write.remote_output import place_of

    count = export(place_of(output), order, target, sys.stdout.buffer.write)
    print(f"{count:,} row{'' if count == 1 else 's'} exported", file=sys.stderr)


def clean_command(output: Annotated[str, _OUT]) -> None:
    """Remove OUT.umbel, the store of a job, once OUT is complete: only a report needs it then.

    Exit codes: 0, 2 usage (also where OUT is not complete, or was changed).
    """
    from umbel.jobs.clean import clean
    from umbel.jobs.write.remote_output import place_of

    print(f"{clean(place_of(output)):,} bytes freed; {output} is untouched")


def _text(status: dict[str, Any]) -> str:
    from umbel.batch.display import line_of, replica_lines
    from umbel.jobs.progress import Reading
    from umbel.jobs.report.text import OUTCOMES

    rows = f"{status['done']:,} of {status['rows']:,} rows" if status["rows"] else f"{status['done']:,} rows"
    lines = [f"{status['output']}: {OUTCOMES.get(status['status'], status['status'])}"]
    told = dict(status["reading"] or {})
    if told:
        told.pop("at")
        reading = Reading.of(told)
        lines += [line_of(reading), *replica_lines(reading.replicas)]
    lines.append(f"stored: {rows}, {status['failed']:,} failed, {status['output_tokens']:,} tokens")
    if status["kept_rows"]:
        lines.append(f"kept: {status['kept_tokens']:,} tokens of {status['kept_rows']:,} more rows, not done")
    return "\n".join(lines)

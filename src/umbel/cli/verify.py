"""`umbel verify`: an independent check of an output file against its input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from umbel.batch.declared import Argument, Option

if TYPE_CHECKING:
    from umbel.jobs.verify import Verdict


def verify_command(
    source: Annotated[Path, Argument(metavar="INPUT", help="The file that was run.")],
    output: Annotated[Path, Argument(metavar="OUTPUT", help="The output of the run.")],
    templated: Annotated[bool, Option("--templated", help="The run used --prompt.")] = False,
    errors: Annotated[Path | None, Option(help="The file of --errors.", metavar="FILE")] = None,
    keep: Annotated[str | None, Option("--keep", help="As the run had it.")] = None,
    id_column: Annotated[str | None, Option("--id", help="As the run had it.", metavar="COLUMN")] = None,
    as_json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Check that OUTPUT has one sound row for each row of INPUT, and print digests of both.

    Exit codes: 0 sound and every row answered, 3 sound but some rows are errors, 1 not sound, 2 usage.
    """
    from umbel.batch.reading import kept_names
    from umbel.jobs.verify import verify

    verdict = verify(source, output, templated=templated, errors=errors, keep=kept_names(keep), id_column=id_column)
    print(json.dumps(verdict.as_dict(), indent=2) if as_json else _text(verdict))
    return verdict.exit_code


def _text(verdict: Verdict) -> str:
    lines = ["sound" if not verdict.faults else f"NOT SOUND: {verdict.faults:,} faults"]
    lines += [f"  {finding}" for finding in verdict.findings]
    lines.append(f"{verdict.rows:,} input rows; {verdict.answers:,} answers, {verdict.errors:,} errors")
    lines += [f"  {count:,} x {code}" for code, count in sorted(verdict.codes.items())]
    lines.append(f"order: {'as in the input' if verdict.order == 'input' else 'not that of the input'}")
    lines.append(f"input  sha256 {verdict.input_sha256}")
    lines.append(f"output sha256 {verdict.output_sha256}")
    return "\n".join(lines)

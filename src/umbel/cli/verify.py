"""`umbel verify`: an independent check of an output file against its input."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from umbel.batch.declared import Argument, Option
from umbel.errors import UsageError

if TYPE_CHECKING:
    from umbel.jobs.verify import Verdict


def verify_command(
    files: Annotated[list[str] | None, Argument(metavar="INPUT OUTPUT", help="Files that were run, then the output.")],
    templated: Annotated[bool, Option("--templated", help="The run used --prompt.")] = False,
    errors: Annotated[Path | None, Option(help="The file of --errors.", metavar="FILE")] = None,
    keep: Annotated[str | None, Option("--keep", help="As the run had it.")] = None,
    id_column: Annotated[str | None, Option("--id", help="As the run had it.", metavar="COLUMN")] = None,
    as_json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Check that OUTPUT has one sound row for each row of INPUT, and print digests of both.

    INPUT is one file or several, in the order and by the names of the run.

    Exit codes: 0 sound and every row answered, 3 sound but some rows are errors, 1 not sound, 2 usage.
    """
    from umbel.batch.reading import kept_names
    from umbel.jobs.read.inputs import expanded
    from umbel.jobs.verify import verify

    *sources, output = files or [""]
    if not sources:
        raise UsageError("give an input and its output: umbel verify INPUT OUTPUT")
    how = {"templated": templated, "errors": errors, "keep": kept_names(keep), "id_column": id_column}
    with _here(expanded(sources, [Path(output)])) as named, _here([output]) as made:
        source = named if len(named) > 1 else next(iter(named.values()))
        verdict = verify(source, next(iter(made.values())), **how)
    print(json.dumps(verdict.as_dict(), indent=2) if as_json else _text(verdict))
    return verdict.exit_code


@contextmanager
def _here(names: Sequence[str]) -> Iterator[dict[str, Path]]:
    """Files by their names, those under URIs as copies."""
    from umbel.jobs.read.inputs import InputFile
    from umbel.jobs.read.spool import opened
    from umbel.jobs.remote import is_uri

    with ExitStack() as stack:
        each = [
            stack.enter_context(opened([name])) if is_uri(name) else [InputFile(Path(name), name)] for name in names
        ]
        yield {file.name: file.path for files in each for file in files}


def _text(verdict: Verdict) -> str:
    lines = ["sound" if not verdict.faults else f"NOT SOUND: {verdict.faults:,} faults"]
    lines += [f"  {finding}" for finding in verdict.findings]
    lines.append(f"{verdict.rows:,} input rows; {verdict.answers:,} answers, {verdict.errors:,} errors")
    lines += [f"  {count:,} x {code}" for code, count in sorted(verdict.codes.items())]
    lines.append(f"order: {'as in the input' if verdict.order == 'input' else 'not that of the input'}")
    digests = verdict.input_sha256
    each = [("", digests)] if isinstance(digests, str) else [(f"  {name}", one) for name, one in digests.items()]
    lines += [f"input  sha256 {digest}{name}" for name, digest in each]
    lines.append(f"output sha256 {verdict.output_sha256}")
    return "\n".join(lines)

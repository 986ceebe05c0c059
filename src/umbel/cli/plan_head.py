"""What stands before a printed plan: which rows cannot run, and how many fit a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umbel.jobs.read.records import InputRow, described
from umbel.plan.deal.fit import fits_text

MAX_LISTED = 100  # rows at fault in JSON
MAX_SHOWN = 10
FIRST = 3  # rows at fault in the short form


def head_of(faults: Sequence[InputRow], rows: int, fits: Mapping[str, Any], width: int) -> list[str]:
    """At most two lines: rows at fault, each by its line and code as far as the width allows, and the budget."""
    lines = [_faults(faults, rows, width)] if faults else []
    return [*lines, f"BUDGET  {fits_text(fits)}"] if fits else lines


def _faults(faults: Sequence[InputRow], rows: int, width: int) -> str:
    """The number of rows that cannot run, and the first of them."""
    text, end = f"FAULTS  {len(faults):,} of {rows:,} row{'' if rows == 1 else 's'} cannot run: ", ", ..."
    for number, row in enumerate(faults):
        code = row.error.code if row.error is not None else "error"
        item = ("" if not number else ", ") + f"line {row.line} {code}"
        if number and len(text + item + end) > width:
            return text + end
        text += item
    return text


def fault_texts(faults: Sequence[InputRow], *, verbose: bool) -> list[str]:
    """The first rows at fault with what is wrong with them."""
    most = MAX_SHOWN if verbose else FIRST
    more = [f"... and {len(faults) - most:,} more (--json lists {MAX_LISTED})"] if len(faults) > most else []
    return [*map(described, faults[:most]), *more]


def faults_json(faults: Sequence[InputRow]) -> list[dict[str, Any]]:
    """The first rows at fault as JSON objects."""
    found = [(row, row.error) for row in faults[:MAX_LISTED] if row.error is not None]
    return [{"line": row.line, "code": error.code, "message": error.message} for row, error in found]

"""The part that CSV and Parquet share: columns that are `prompt` or `messages`, or feed a prompt template."""

from __future__ import annotations

from collections.abc import Sequence

from umbel.errors import UsageError
from umbel.jobs.read.formats.parse import RowParser

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def check_columns(names: Sequence[str], parser: RowParser) -> None:
    """Raise UsageError when a column that prompts are made from does not exist."""
    if not names:
        return  # an empty file, which the source reports
    missing = parser.template.columns - set(names) if parser.template else {"prompt", "messages"}.isdisjoint(names)
    other = next((name for mark, name in _SEPARATORS.items() if len(names) == 1 and mark in names[0]), None)
    if missing and other:
        raise UsageError(f"the columns are separated by {other}, not commas: {names[0]!r}; convert the file to commas")
    if parser.template is not None:
        parser.template.check_columns(names)
    elif missing:
        advice = "build prompts with --prompt '... {column}'"
        raise UsageError(f"no column 'prompt' or 'messages'; {advice} from: {', '.join(names)}")

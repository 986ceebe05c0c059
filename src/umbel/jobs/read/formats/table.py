"""The part that all tables share: columns that are `prompt` or `messages`, or feed a prompt template, and columns of
sampling fields, also as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import orjson

from umbel.errors import UsageError
from umbel.ir.body import EFFECTIVE_FIELDS, SAMPLING_COLUMNS
from umbel.jobs.read.formats.branches import FIELDS
from umbel.jobs.read.formats.parse import RowParser

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_TEXTS = frozenset({"stop", "bad_words", "calibration_prompt"})  # a cell is a text, unless it is a list in JSON
_WORDS = MappingProxyType({"true": True, "false": False})


def check_columns(names: Sequence[str], parser: RowParser) -> None:
    """Raise UsageError when a column that prompts are made from, or that was asked for by name, does not exist."""
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
    if parser.system is not None:
        parser.system.check_columns(names)
    parser.keeping.check(names)


def columns_read(names: Sequence[str], parser: RowParser) -> list[str]:
    """Of a table's columns, those that a request is made from, and those that are probably misspelt ones of them."""
    own = {parser.id_field, *parser.data}
    if parser.template is not None:
        own |= SAMPLING_COLUMNS
    else:
        own |= EFFECTIVE_FIELDS | FIELDS | {"prompt", "messages", "model"}
    return [name for name in names if name in own or parser.names.is_slip(name)]


def fields_in(cells: Mapping[str, str], read: Sequence[str], parser: RowParser) -> dict[str, Any]:
    """The fields of a row whose cells are all text: numbers, lists and objects as JSON writes them, an empty cell as
    one that is not given."""
    data = parser.data if parser.template is not None else parser.data | {"prompt", "model"}
    found: dict[str, Any] = {}
    for name in read:
        if name in data or name == parser.id_field:
            found[name] = cells[name]
        elif cells[name].strip():
            found[name] = _value(name, cells[name])
    return found


def _value(name: str, cell: str) -> Any:
    if name in _TEXTS and not cell.lstrip().startswith("["):
        return cell
    try:
        value = orjson.loads(cell)
    except orjson.JSONDecodeError:
        return _WORDS.get(cell.strip().lower(), cell)
    return int(value) if isinstance(value, float) and value.is_integer() else value

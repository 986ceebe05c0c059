"""The options of a job as keywords of a Python call: those of `umbel run`, with underscores."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from umbel.batch.declared import DeclaredOption, Option, declared, gathered, plain, python_name
from umbel.batch.job_options import JobOptions
from umbel.errors import UsageError, nearest
from umbel.foreign import instead
from umbel.ir.limits import shown

PLACED = frozenset({"model", "file", "input_file", "output"})
"""Options that a call has parameters for."""
_TYPES: Mapping[type, tuple[type, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "a text"),
}
_UNLIKE = "no_"  # begins the name of a flag that turns something off


def job_options(model: str, sources: Sequence[str], output: str, given: Mapping[str, object]) -> JobOptions:
    """The job that a call asks for. Raises UsageError for a keyword that is no option, one given twice under two names,
    or a value of another type."""
    options = {option.name: option for option in declared(JobOptions)}
    known = keywords(options.values())
    values = {name: option.default for name, option in options.items()}
    values |= {"model": model, "file": list(sources), "output": output}
    seen: dict[str, str] = {}
    for keyword, value in given.items():
        if keyword not in known:
            raise UsageError(f"no option {keyword!r}{_hint(keyword, known)}")
        option = known[keyword]
        if (twin := seen.setdefault(option.name, keyword)) != keyword:
            raise UsageError(f"{twin} and {keyword} are one option: give one of them")
        if value is not None:
            values[option.name] = _value(keyword, option, value)
    return JobOptions(**gathered(JobOptions, values))


def keywords(options: Iterable[DeclaredOption]) -> dict[str, DeclaredOption]:
    """Options by every name that a call may give them. A flag that turns something off, --no-x, is `x=False` too."""
    found = {}
    for option in options:
        if option.name not in PLACED:
            names = [python_name(name) for name in option.names if name.startswith("--")]
            found |= dict.fromkeys([*names, *(name.removeprefix(_UNLIKE) for name in names)], option)
    return found


def _hint(keyword: str, known: Mapping[str, DeclaredOption]) -> str:
    if (answer := instead(keyword)) is not None:
        return f": {answer}"
    safe = [name for name, option in known.items() if not getattr(option.told, "destroys", False)]
    return nearest(keyword, safe) or "; docs/options.md lists those of umbel run"


def _value(keyword: str, option: DeclaredOption, value: object) -> Any:
    """A value as the option's record holds it. Raises UsageError for one of another type."""
    kind, told = plain(option.kind), option.told
    if kind is bool:
        if not isinstance(value, bool):
            raise _wrong(keyword, value, "True or False")
        return value == (keyword in map(python_name, option.names))
    if get_origin(kind) is list:
        (each,) = get_args(kind)
        if told.metavar == "NAME=DIR" and isinstance(value, Mapping):
            value = [f"{name}={os.fspath(place)}" for name, place in value.items()]
        several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return [_single(keyword, each, one) for one in several]
    if isinstance(told, Option) and told.several and isinstance(value, list | tuple):
        return _joined(keyword, value)
    if isinstance(told, Option) and told.metavar == "JSON" and isinstance(value, Mapping | list):
        return json.dumps(value)
    if isinstance(told, Option) and told.metavar == "TIME" and isinstance(value, Real) and not isinstance(value, bool):
        return str(value)
    return _single(keyword, kind, value)


def _single(keyword: str, kind: Any, value: object) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise _wrong(keyword, value, f"one of {', '.join(get_args(kind))}")
        return value
    if kind is Path:
        if not isinstance(value, str | os.PathLike):
            raise _wrong(keyword, value, "a path")
        return Path(value)
    wanted, words = _TYPES[kind]
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise _wrong(keyword, value, words)
    return kind(value)


def _joined(keyword: str, names: Sequence[object]) -> str:
    """Names as a command line has them, with commas between them."""
    for name in names:
        if not isinstance(name, str) or not name or "," in name:
            raise _wrong(keyword, name, "a text without a comma, each of them")
    return ",".join(map(str, names)) or "none"


def _wrong(keyword: str, value: object, words: str) -> UsageError:
    return UsageError(f"{keyword}={shown(value)}: must be {words}")

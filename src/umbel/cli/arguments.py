"""Reads a command line by the signature of a command: names, types, defaults and help stand beside each parameter.

A parameter is `name: Annotated[type, Option(...)] = default` or `Argument(...)`; types are str, int, float, Path, bool
(a flag), a Literal (a choice) and list[str] (may be repeated), each of them also `| None`. A parameter whose type is a
dataclass stands for all of its fields, which are written the same way. Built on argparse, which loads in milliseconds:
`umbel plan` and `umbel --help` answer before a larger library would have been imported.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from inspect import Parameter, cleandoc, signature
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from umbel.errors import UsageError, nearest


@dataclass(frozen=True, slots=True)
class Argument:
    """A positional argument: its help, and its name in the usage line."""

    help: str
    metavar: str | None = None


class Option:
    """An argument given by name: `--name-of-the-parameter` if no `names` are given. In `help`, {choices} stands for the
    values that the option of EngineConfig with the parameter's name may have. `min` bounds a number. The value of a
    `bare` one may be left out, which gives ''; it can only be `--name=VALUE`: the next word is never taken for it."""

    def __init__(
        self, *names: str, help: str, min: float | None = None, metavar: str | None = None, bare: bool = False
    ):
        self.names = names
        self.help = help
        self.min = min
        self.metavar = metavar
        self.bare = bare


def call(command: Callable[..., int | None], arguments: Sequence[str], name: str, **more: Any) -> int:
    """Call a command with the arguments of a command line, and with `more` for those of its parameters that are no
    options; returns its exit code. Raises UsageError for a mistake; `--help` prints the help and raises SystemExit."""
    about = cleandoc(command.__doc__ or "")
    parser = _Parser(name, description=about, allow_abbrev=False, add_help=False, formatter_class=_Help)
    parser.add_argument("-h", "--help", action="help", help="Show this and exit.")
    options, groups = _options(command)
    actions = [_add(parser, option) for option in options]
    parser.usage = f"{name} [OPTIONS]" + "".join(f" {a.metavar}" for a in actions if not a.option_strings)
    bare = {f"--{option.name}" for option in options if getattr(option.told, "bare", False)}
    # Options may stand before, behind and between the places of arguments.
    found, unknown = parser.parse_known_intermixed_args([f"{w}=" if w in bare else w for w in arguments])
    if unknown:  # said before what is missing, which may be what was misspelt
        what = "option" if unknown[0].startswith("-") else "argument"
        known = [option for action in actions for option in action.option_strings]
        parser.error(f"no {what} {unknown[0]!r}{nearest(unknown[0].split('=')[0], known)}")
    values = vars(found)
    for action, option in zip(actions, options, strict=True):
        if option.default is Parameter.empty and values[option.name] is None:
            parser.error(f"{'/'.join(action.option_strings) or action.metavar} is missing")
    made = {name: kind(**{f.name: values.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
    taken = signature(command).parameters
    return command(**values, **made, **{name: value for name, value in more.items() if name in taken}) or 0


@dataclass(frozen=True, slots=True)
class _Declared:
    """An option or argument as a command declares it."""

    name: str
    kind: Any
    told: Argument | Option
    default: Any


def _options(command: Callable[..., int | None]) -> tuple[list[_Declared], dict[str, type]]:
    """All that a command takes, in order, and the groups among its parameters by name."""
    hints, found, groups = get_type_hints(command, include_extras=True), list[_Declared](), dict[str, type]()
    for parameter in signature(command).parameters.values():
        hint = hints[parameter.name]
        if get_origin(hint) is Annotated:
            found.append(_Declared(parameter.name, *get_args(hint), parameter.default))
        elif is_dataclass(hint) and isinstance(hint, type):
            groups[parameter.name] = hint
            inner = get_type_hints(hint, include_extras=True)
            defaults = [Parameter.empty if f.default is MISSING else f.default for f in fields(hint)]
            found += [
                _Declared(f.name, *get_args(inner[f.name]), default)
                for f, default in zip(fields(hint), defaults, strict=True)
            ]
    return found, groups


class _Help(argparse.RawDescriptionHelpFormatter):
    """A formatter with room for our longer names beside their help. The values that other packages add are looked for
    only when help is printed."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        return text.replace("{choices}", _choices(action.dest)) if "{choices}" in text else text


def _choices(option: str) -> str:
    """The values of an option of EngineConfig, those that may change answers named as such: "a, b (lossy) or c"."""
    from umbel import registry
    from umbel.config import choices

    found = [f"{value} (lossy)" if registry.is_lossy(option, value) else value for value in choices(option)]
    listed = f"{', '.join(found[:-1])} or {found[-1]}" if len(found) > 1 else "".join(found) or "none is installed"
    return listed.replace("%", "%%")


class _Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line, as all of umbel does, without the usage of every option."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


_METAVARS = MappingProxyType({int: "N", float: "X", Path: "PATH"})


def _add(parser: argparse.ArgumentParser, option: _Declared) -> argparse.Action:
    """Add one option or argument to the parser."""
    kind, told, default = option.kind, option.told, None if option.default is Parameter.empty else option.default
    more: dict[str, Any] = {"help": told.help.replace("%", "%%"), "default": default}
    if isinstance(told, Argument):
        metavar = told.metavar or option.name.upper()
        return parser.add_argument(option.name, type=_plain(kind), nargs="?", metavar=metavar, **more)
    plain = _plain(kind)
    if plain is bool:
        more["action"] = "store_true"
    elif get_origin(plain) is Literal:
        more["choices"] = get_args(plain)
    elif get_origin(plain) is list:
        more |= {"action": "append", "metavar": told.metavar or "TEXT", "type": _text}
    elif plain is str:
        more |= {"metavar": told.metavar or "TEXT", "type": _text}
    else:
        more["type"] = plain if told.min is None else _at_least(plain, told.min)
        more["metavar"] = told.metavar or _METAVARS[plain]
    if default not in (None, False):
        more["help"] += f" [{default}]"
    names = told.names or (f"--{option.name.replace('_', '-')}",)
    return parser.add_argument(*names, dest=option.name, **more)


def _text(given: str) -> str:
    """Decode an argument as UTF-8, also where the system's locale knows ASCII only and has passed its bytes through."""
    try:
        return os.fsencode(given).decode("utf-8")
    except UnicodeEncodeError:  # given by a program, not by the system
        return given
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"{given!r}: is not text in UTF-8") from None


def _plain(kind: Any) -> Any:
    """The type without `| None`."""
    if get_origin(kind) is not UnionType:
        return kind
    (plain,) = (part for part in get_args(kind) if part is not type(None))
    return plain


def _at_least(kind: Callable[[str], float], least: float) -> Callable[[str], float]:
    """A reader of numbers that refuses those below `least`."""

    def read(text: str) -> float:
        value = kind(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text}: must be at least {least:g}")
        return value

    read.__name__ = getattr(kind, "__name__", "number")  # argparse names the type by it: "invalid int value"
    return read

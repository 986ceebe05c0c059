"""Reads a command line by the signature of a command: names, types, defaults and help stand beside each parameter.

A parameter is `name: Annotated[type, Option(...)] = default` or `Argument(...)`; types are str, int, float, Path, bool
(a flag), a Literal (a choice) and list[...] of these (may be repeated), each of them also `| None`. A parameter whose
type is a dataclass stands for all of its fields, which are written the same way; the first line of its docstring is the
heading of these options in the help. Built on argparse, which loads in milliseconds:
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

from umbel.cli.foreign import FOREIGN
from umbel.errors import UsageError, nearest

AFTER = "\n\f\n"  # in a command's docstring: what comes behind it stands at the end of the help


@dataclass(frozen=True, slots=True)
class Argument:
    """A positional argument: its help, and its name in the usage line."""

    help: str
    metavar: str | None = None


class Option:
    """An argument given by name: `--name-of-the-parameter` if no `names` are given. In `help`, {choices} stands for the
    values that the option of EngineConfig with the parameter's name may have. `min` bounds a number. The value of a
    `bare` one may be left out, which gives ''; it can only be `--name=VALUE`: the next word is never taken for it. One
    that `destroys` something is never proposed for a misspelt name."""

    def __init__(
        self,
        *names: str,
        help: str,
        min: float | None = None,
        metavar: str | None = None,
        bare: bool = False,
        destroys: bool = False,
    ):
        self.names = names
        self.help = help
        self.min = min
        self.metavar = metavar
        self.bare = bare
        self.destroys = destroys


def call(command: Callable[..., int | None], arguments: Sequence[str], name: str, **more: Any) -> int:
    """Call a command with the arguments of a command line, and with `more` for those of its parameters that are no
    options; returns its exit code. Raises UsageError for a mistake; `--help` prints the help and raises SystemExit."""
    about, _, after = cleandoc(command.__doc__ or "").partition(AFTER)
    parser = _Parser(
        name, description=about.strip(), epilog=after.strip(), allow_abbrev=False, add_help=False, formatter_class=_Help
    )
    options = declared(command)
    actions = _fill(parser, options)
    parser.usage = f"{name} [OPTIONS]" + "".join(f" {a.metavar}" for a in actions if not a.option_strings)
    bare = {f"--{option.name}" for option in options if getattr(option.told, "bare", False)}
    # Options may stand before, behind and between the places of arguments.
    found, unknown = parser.parse_known_intermixed_args([f"{w}=" if w in bare else w for w in arguments])
    if unknown:  # said before what is missing, which may be what was misspelt
        parser.error(_not_known(unknown[0], actions, options))
    values = vars(found)
    for action, option in zip(actions, options, strict=True):
        if option.default is Parameter.empty and values[option.name] is None:
            parser.error(f"{'/'.join(action.option_strings) or action.metavar} is missing")
    taken = signature(command).parameters
    return command(**_gathered(command, values), **{key: value for key, value in more.items() if key in taken}) or 0


@dataclass(frozen=True, slots=True)
class DeclaredOption:
    """An option or argument as a command declares it, under the `heading` of its group ("" for none)."""

    name: str
    kind: Any
    told: Argument | Option
    default: Any
    heading: str

    @property
    def names(self) -> tuple[str, ...]:
        """How it is written on a command line; nothing for what has a place instead of a name."""
        if isinstance(self.told, Argument):
            return ()
        return self.told.names or (f"--{self.name.replace('_', '-')}",)


def declared(taker: Callable[..., Any], heading: str = "") -> list[DeclaredOption]:
    """All options that a command, or a group of them, takes, in order."""
    hints, found = get_type_hints(taker, include_extras=True), list[DeclaredOption]()
    if isinstance(taker, type):  # a group, whose parameters are its fields
        hints = get_type_hints(taker, include_extras=True)
        defaults = {f.name: Parameter.empty if f.default is MISSING else f.default for f in fields(taker)}
    else:
        defaults = {name: parameter.default for name, parameter in signature(taker).parameters.items()}
    for name, default in defaults.items():
        if get_origin(hints[name]) is Annotated:
            found.append(DeclaredOption(name, *get_args(hints[name]), default, heading))
        elif _is_group(hints[name]):
            found += declared(hints[name], _heading(hints[name]))
    return found


def _is_group(hint: Any) -> bool:
    return isinstance(hint, type) and is_dataclass(hint)


def _heading(group: type) -> str:
    return cleandoc(group.__doc__ or "").partition("\n")[0].rstrip(".")


def _gathered(taker: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values of a command line as the parameters of a command, or the fields of a group."""
    found = {}
    for name, hint in get_type_hints(taker, include_extras=True).items():
        if get_origin(hint) is Annotated:
            found[name] = values[name]
        elif _is_group(hint) and name != "return":
            found[name] = hint(**_gathered(hint, values))
    return found


def _not_known(given: str, actions: Sequence[argparse.Action], options: Sequence[DeclaredOption]) -> str:
    """What is said of an option or argument that there is not: never the name of one that destroys something."""
    if not given.startswith("-"):
        return f"no argument {given!r}"
    name = given.split("=", maxsplit=1)[0]
    if name in FOREIGN:
        return f"no option {name!r}: {FOREIGN[name]}"
    safe = [o for o, a in zip(options, actions, strict=True) if not getattr(o.told, "destroys", False)]
    return f"no option {given!r}{nearest(name, [n for option in safe for n in option.names])}"


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


_METAVARS = MappingProxyType({int: "INT", float: "FLOAT", Path: "FILE"})


def _fill(parser: argparse.ArgumentParser, options: Sequence[DeclaredOption]) -> list[argparse.Action]:
    """Add options to a parser, those of a group under its heading; places first in the help."""
    parser.add_argument("-h", "--help", action="help", help="Show this and exit.")
    groups: dict[str, argparse._ActionsContainer] = {"": parser}
    for option in options:
        if option.heading not in groups:
            groups[option.heading] = parser.add_argument_group(option.heading)
    return [_add(groups[option.heading] if option.names else parser, option) for option in options]


def _add(parser: argparse._ActionsContainer, option: DeclaredOption) -> argparse.Action:
    """Add one option or argument to a parser or a group of it."""
    kind, told, default = option.kind, option.told, None if option.default is Parameter.empty else option.default
    more: dict[str, Any] = {"help": told.help.replace("%", "%%"), "default": default}
    if isinstance(told, Argument):
        metavar = told.metavar or option.name.upper()
        return parser.add_argument(option.name, type=_plain(kind), nargs="?", metavar=metavar, **more)
    more |= _reads(_plain(kind), told)
    if default not in (None, False):
        more["help"] += f" [{default}]"
    return parser.add_argument(*option.names, dest=option.name, **more)


def _reads(plain: Any, told: Option) -> dict[str, Any]:
    """How argparse is to read a value of a type."""
    if plain is bool:
        return {"action": "store_true"}
    if get_origin(plain) is Literal:
        return {"choices": get_args(plain)}
    if get_origin(plain) is list:
        (each,) = get_args(plain)
        return {"action": "append", **_reads(each, told)}
    if plain is str:
        return {"metavar": told.metavar or ("NAME" if "{choices}" in told.help else "TEXT"), "type": _text}
    return {
        "type": plain if told.min is None else _at_least(plain, told.min),
        "metavar": told.metavar or _METAVARS[plain],
    }


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

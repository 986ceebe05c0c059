"""Reads a command line by the signature of a command: names, types, defaults and help stand beside each parameter.

Types (batch.declared) are str, int, float, Path, bool (a flag), a Literal (a choice) and list[...] of these (may be
repeated), each of them also `| None`. Built on argparse, which loads in milliseconds:
`umbel plan` and `umbel --help` answer before a larger library would have been imported.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from inspect import Parameter, cleandoc, signature
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NoReturn, get_args, get_origin

from umbel.batch.declared import Argument, DeclaredOption, Option, declared, gathered, option_name, plain, python_name
from umbel.cli.texts import decoded, written
from umbel.errors import UsageError, nearest
from umbel.foreign import instead

AFTER = "\n\f\n"  # in a command's docstring: what comes behind it stands at the end of the help


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
    return command(**gathered(command, values), **{key: value for key, value in more.items() if key in taken}) or 0


def _not_known(given: str, actions: Sequence[argparse.Action], options: Sequence[DeclaredOption]) -> str:
    """What is said of an option or argument that there is not: never the name of one that destroys something."""
    if not given.startswith("-"):
        return f"no argument {given!r}"
    name = given.split("=", maxsplit=1)[0]
    if (answer := instead(python_name(name), option_name)) is not None:
        return f"no option {name!r}: {answer}"
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
            example = f"e.g. {option.example}" if option.example else None
            groups[option.heading] = parser.add_argument_group(option.heading, example)
    return [_add(groups[option.heading] if option.names else parser, option) for option in options]


def _add(parser: argparse._ActionsContainer, option: DeclaredOption) -> argparse.Action:
    """Add one option or argument to a parser or a group of it."""
    kind, told, default = option.kind, option.told, None if option.default is Parameter.empty else option.default
    more: dict[str, Any] = {"help": told.help.replace("%", "%%"), "default": default}
    if isinstance(told, Argument):
        metavar = told.metavar or option.name.upper()
        each, count = plain(kind), "?"
        if get_origin(each) is list:
            (each,), count = get_args(each), "*"
        return parser.add_argument(option.name, type=each, nargs=count, metavar=metavar, **more)
    more |= _reads(plain(kind), told)
    if default not in (None, False):
        more["help"] += f" [{default}]"
    return parser.add_argument(*option.names, dest=option.name, **more)


def _reads(kind: Any, told: Option) -> dict[str, Any]:
    """How argparse is to read a value of a type."""
    if kind is bool:
        return {"action": "store_true"}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if kind == list[int]:
        return {"action": "extend", "metavar": told.metavar or "INT,...", "type": _ints}
    if get_origin(kind) is list:
        (each,) = get_args(kind)
        return {**_reads(each, told), "action": "append"}
    if kind is str:
        reads = written if told.written else str if told.metavar == "FILE" else decoded  # names of files as they come
        if "{choices}" in told.help:
            return {"metavar": told.metavar or "NAME", "type": reads, "action": _OneOfMany}
        return {"metavar": told.metavar or "TEXT", "type": reads}
    return {
        "type": kind if told.min is None else _at_least(kind, told.min),
        "metavar": told.metavar or _METAVARS[kind],
    }


class _OneOfMany(argparse.Action):
    """Takes a technique: of two that are asked for, none would be left out without a word."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Note the value; a second one is a mistake."""
        given = namespace.__dict__.setdefault("_given", {}).setdefault(self.dest, values)
        if given != values:
            raise argparse.ArgumentError(self, f"{given} and {values}: it takes one of them")
        setattr(namespace, self.dest, values)


def _ints(given: str) -> list[int]:
    """Whole numbers with commas between them."""
    try:
        return [int(number) for number in given.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{given!r}: must be whole numbers with commas between them") from None


def _at_least(kind: Callable[[str], float], least: float) -> Callable[[str], float]:
    """A reader of numbers that refuses those below `least`."""

    def read(text: str) -> float:
        value = kind(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text}: must be at least {least:g}")
        return value

    read.__name__ = getattr(kind, "__name__", "number")  # argparse names the type by it: "invalid int value"
    return read

"""Options as a function or a record declares them: name, type, default and help stand beside each parameter.

A parameter is `name: Annotated[type, Option(...)] = default` or `Argument(...)`. One whose type is a dataclass stands
for all of its fields, which are written the same way; the first line of its docstring is the heading of these options
in the help, and what it says behind "Example:" stands below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from inspect import Parameter, cleandoc, signature
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True)
class Argument:
    """A positional argument: its help, and its name in the usage line."""

    help: str
    metavar: str | None = None


class Option:
    """An argument given by name: `--name-of-the-parameter` if no `names` are given. In `help`, {choices} stands for the
    values that the option of EngineConfig with the parameter's name may have. `min` bounds a number. The value of a
    `bare` one may be left out, which gives ''; it can only be `--name=VALUE`: the next word is never taken for it. One
    that `destroys` something is never proposed for a misspelt name. A text of `several` names with commas between them
    is a list in Python. A `written` text may have escapes on a command line, or be that of @FILE."""

    def __init__(
        self,
        *names: str,
        help: str,
        min: float | None = None,
        metavar: str | None = None,
        bare: bool = False,
        destroys: bool = False,
        several: bool = False,
        written: bool = False,
    ):
        self.names = names
        self.help = help
        self.min = min
        self.metavar = metavar
        self.bare = bare
        self.destroys = destroys
        self.several = several
        self.written = written


@dataclass(frozen=True, slots=True)
class DeclaredOption:
    """An option or argument as a command declares it, under the `heading` of its group ("" for none), of which there
    may be an `example`."""

    name: str
    kind: Any
    told: Argument | Option
    default: Any
    heading: str
    example: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """How it is written on a command line; nothing for what has a place instead of a name."""
        if isinstance(self.told, Argument):
            return ()
        return self.told.names or (f"--{self.name.replace('_', '-')}",)


def declared(taker: Callable[..., Any], heading: str = "", example: str = "") -> list[DeclaredOption]:
    """All options that a command, or a group of them, takes, in order."""
    hints, found = get_type_hints(taker, include_extras=True), list[DeclaredOption]()
    if isinstance(taker, type):  # a group, whose parameters are its fields
        defaults = {f.name: Parameter.empty if f.default is MISSING else f.default for f in fields(taker)}
    else:
        defaults = {name: parameter.default for name, parameter in signature(taker).parameters.items()}
    for name, default in defaults.items():
        if get_origin(hints[name]) is Annotated:
            found.append(DeclaredOption(name, *get_args(hints[name]), default, heading, example))
        elif _is_group(hints[name]):
            found += declared(hints[name], *_told(hints[name]))
    return found


def _is_group(hint: Any) -> bool:
    return isinstance(hint, type) and is_dataclass(hint)


def _told(group: type) -> tuple[str, str]:
    """The heading of a group, and its example, which is the end of its docstring."""
    about, _, example = cleandoc(group.__doc__ or "").partition("\n\nExample: ")
    return about.partition("\n")[0].rstrip("."), example


def gathered(taker: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a command line as the parameters of a command, or the fields of a group."""
    found = {}
    for name, hint in get_type_hints(taker, include_extras=True).items():
        if get_origin(hint) is Annotated:
            found[name] = values[name]
        elif _is_group(hint) and name != "return":
            found[name] = hint(**gathered(hint, values))
    return found


def plain(kind: Any) -> Any:
    """A type without `| None`."""
    if get_origin(kind) not in (UnionType, Union):  # the second is what Python makes of Literal[...] | None
        return kind
    (found,) = (part for part in get_args(kind) if part is not type(None))
    return found


def python_name(option: str) -> str:
    """An option of a command line as Python writes it: --max-tokens is max_tokens."""
    return option.lstrip("-").replace("-", "_")


def option_name(name: str) -> str:
    """A keyword as a command line writes it."""
    return f"--{name.replace('_', '-')}"

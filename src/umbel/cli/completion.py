"""`umbel completion`: a script that completes commands, options and values in bash, zsh or fish."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Annotated, Literal, get_args, get_origin

from umbel.batch.declared import Argument, DeclaredOption, declared, plain
from umbel.cli.main import COMMANDS
from umbel.config import choices
from umbel.errors import UsageError


@dataclass(frozen=True, slots=True)
class Completed:
    """An option as shells complete it: its names, what it is for, whether a value follows, and which ones may."""

    names: tuple[str, ...]
    about: str
    takes_value: bool
    values: tuple[str, ...]

    @classmethod
    def of(cls, option: DeclaredOption) -> Completed:
        """An option that a command declares."""
        kind, values = plain(option.kind), tuple[str, ...]()
        if get_origin(kind) is Literal:
            values = get_args(kind)
        elif "{choices}" in option.told.help:
            values = tuple(map(str, choices(option.name)))
        takes_value = kind is not bool and not getattr(option.told, "bare", False)
        return cls(option.names, option.told.help.replace("{choices}", ", ".join(values)), takes_value, values)


def completion_command(
    shell: Annotated[str, Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print a script that completes commands, options and their values.

    \f
    Examples:
      eval "$(umbel completion bash)"                               (in ~/.bashrc)
      eval "$(umbel completion zsh)"                                (in ~/.zshrc, after compinit)
      umbel completion fish > ~/.config/fish/completions/umbel.fish

    Exit codes: 0, 2 usage.
    """
    if shell not in _SCRIPTS:
        raise UsageError(f"no completion for {shell!r}: there is one for {', '.join(_SCRIPTS)}")
    print("\n".join(_SCRIPTS[shell](options_of())))


def options_of() -> dict[str, list[Completed]]:
    """The options of each command."""
    found = {}
    for name, (module, function, _) in COMMANDS.items():
        options = [option for option in declared(getattr(import_module(module), function)) if option.names]
        found[name] = [Completed.of(option) for option in options]
    return found


def _bash(options: dict[str, list[Completed]]) -> Iterator[str]:
    yield "_umbel() {"
    yield '  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" words='
    yield "  COMPREPLY=()"
    yield '  if [ "$COMP_CWORD" -eq 1 ]; then'
    yield f'    COMPREPLY=($(compgen -W "{" ".join(options)} help" -- "$cur")); return'
    yield "  fi"
    yield '  case "${COMP_WORDS[1]} $prev" in'
    for command, known in options.items():
        for option in known:
            if option.values:
                patterns = "|".join(f'"{command} {name}"' for name in option.names)
                yield f'    {patterns}) COMPREPLY=($(compgen -W "{" ".join(option.values)}" -- "$cur")); return ;;'
    yield "  esac"
    yield '  case "${COMP_WORDS[1]}" in'
    yield f'    help) COMPREPLY=($(compgen -W "{" ".join(options)}" -- "$cur")); return ;;'
    yield f'    completion) COMPREPLY=($(compgen -W "{" ".join(_SCRIPTS)}" -- "$cur")); return ;;'
    for command, known in options.items():
        yield f'    {command}) words="{" ".join(name for option in known for name in option.names)} --help" ;;'
    yield "  esac"
    yield '  if [ "${cur#-}" != "$cur" ]; then COMPREPLY=($(compgen -W "$words" -- "$cur"))'
    yield '  else COMPREPLY=($(compgen -f -- "$cur")); fi'
    yield "}"
    yield "complete -o filenames -F _umbel umbel"


def _zsh(options: dict[str, list[Completed]]) -> Iterator[str]:
    yield "#compdef umbel"
    yield "_umbel() {"
    yield f"  if (( CURRENT == 2 )); then compadd -- {' '.join(options)} help; return; fi"
    yield "  local command=$words[2]"
    yield "  shift words; (( CURRENT-- ))"
    yield "  case $command in"
    yield f"    help) compadd -- {' '.join(options)} ;;"
    yield f"    completion) compadd -- {' '.join(_SCRIPTS)} ;;"
    for command, known in options.items():
        if command == "completion":
            continue
        yield f"    {command})"
        specs = [_zsh_spec(option, name) for option in known for name in option.names]
        yield "      _arguments -S \\\n        " + " \\\n        ".join([*specs, "'*:file:_files'"]) + " ;;"
    yield "  esac"
    yield "}"
    yield "compdef _umbel umbel"


def _zsh_spec(option: Completed, name: str) -> str:
    about = re.sub(r"([\[\]:\\])", r"\\\1", option.about).replace("'", "'\\''")
    values = f"({' '.join(option.values)})" if option.values else "_files"
    return f"'*{name}[{about}]" + (f":value:{values}'" if option.takes_value else "'")


def _fish(options: dict[str, list[Completed]]) -> Iterator[str]:
    for name, (_, _, brief) in COMMANDS.items():
        yield f"complete -c umbel -n __fish_use_subcommand -f -a {name} -d {_fish_text(brief)}"
    yield f"complete -c umbel -n '__fish_seen_subcommand_from completion' -f -a '{' '.join(_SCRIPTS)}'"
    for command, known in options.items():
        for option in known:
            names = " ".join(
                f"-l {n[2:]}" if n.startswith("--") else f"-{'s' if len(n) == 2 else 'o'} {n[1:]}" for n in option.names
            )
            values = f" -a '{' '.join(option.values)}' -f" if option.values else ""
            value = f" -r{values}" if option.takes_value else ""
            where = f"complete -c umbel -n '__fish_seen_subcommand_from {command}'"
            yield f"{where} {names} -d {_fish_text(option.about)}{value}"


def _fish_name(name: str) -> str:
    """A name as fish takes it: long, short, or long behind one dash."""
    if name.startswith("--"):
        return f"-l {name[2:]}"
    return f"-s {name[1:]}" if len(name) == 2 else f"-o {name[1:]}"


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_SCRIPTS: Mapping[str, Callable[[dict[str, list[Completed]]], Iterator[str]]] = MappingProxyType(
    {"bash": _bash, "zsh": _zsh, "fish": _fish}
)

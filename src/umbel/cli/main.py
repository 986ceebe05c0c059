"""Entry point of `umbel`: finds the command, imports it alone, turns planned failures into messages and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

from umbel.config import nearest
from umbel.errors import UmbelError

INTERNAL, USAGE, INTERRUPTED = 1, 2, 130


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command's function lives and the line that `umbel --help` shows for it."""

    module: str
    function: str
    brief: str


COMMANDS = MappingProxyType(
    {
        "run": Command("umbel.cli.run", "run_command", "Run a file of prompts through a model; resumable."),
        "plan": Command("umbel.cli.plan", "plan_command", "Show what a run would compute, hold in memory and take."),
        "sim": Command("umbel.cli.sim", "sim_command", "Show what a job would take under other engines' policies."),
        "doctor": Command("umbel.cli.doctor", "doctor_command", "Check the installation and measure this machine."),
        "report": Command("umbel.cli.report", "report_command", "Hold what a run did against what its plan expected."),
        "bench": Command("umbel.cli.bench", "bench_command", "Compare with other engines on the same workloads."),
        "verify": Command("umbel.cli.verify", "verify_command", "Check an output file against its input."),
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (DESIGN §5)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if given else USAGE
    if given[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"umbel {version('umbel')}")
        return 0
    command = COMMANDS.get(given[0])
    if command is None:
        what = "option" if given[0].startswith("-") else "command"
        return _fail(f"no {what} {given[0]!r}{nearest(given[0], COMMANDS)}; see umbel --help", USAGE)
    return _guarded(lambda: _call(given[0], command, given[1:]))


def _call(name: str, command: Command, arguments: Sequence[str]) -> int:
    from umbel.cli.arguments import call

    try:
        return call(getattr(import_module(command.module), command.function), arguments, f"umbel {name}")
    except SystemExit as end:  # --help
        return end.code if isinstance(end.code, int) else INTERNAL


def _guarded(act: Callable[[], int]) -> int:
    try:
        return act()
    except UmbelError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left; nothing more to say
        return INTERNAL


def _fail(message: str, code: int) -> int:
    print(f"umbel: {message}", file=sys.stderr)
    return code


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.brief}" for name, command in COMMANDS.items()]
    head = ["Usage: umbel COMMAND ...", "", "The batch query engine for large language models.", "", "Commands:"]
    tail = ["", "umbel COMMAND --help shows a command's options; umbel --version the version."]
    return "\n".join([*head, *lines, *tail])


if __name__ == "__main__":
    sys.exit(main())

"""Entry point of `umbel`: finds the command, imports it alone, turns expected failures into messages and exit codes."""

from __future__ import annotations

import sys
from contextlib import suppress
from types import MappingProxyType

from umbel.cli.process import READER_LEFT, await_stops, finish, show_what_can_be_shown
from umbel.jobs.signals import INTERRUPTED

TYPE_CHECKING = False  # for what is imported before signals are awaited, typing is large
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INTERNAL, USAGE = 1, 2

COMMANDS = MappingProxyType(
    {  # where a command's function lives, and the line that `umbel --help` shows for it
        "run": ("umbel.cli.run", "run_command", "Run a file of prompts through a model; resumable."),
        "serve": ("umbel.cli.serve", "serve_command", "Serve a model to OpenAI's clients."),
        "plan": ("umbel.cli.plan", "plan_command", "Show what a run would compute, hold in memory and take."),
        "sim": ("umbel.cli.sim", "sim_command", "Show what a job would take under other engines' policies."),
        "doctor": ("umbel.cli.doctor", "doctor_command", "Check the installation and measure this machine."),
        "report": ("umbel.cli.report", "report_command", "Hold what a run did against what its plan expected."),
        "status": ("umbel.cli.status", "status_command", "Say how far a job is, also while it runs."),
        "export": ("umbel.cli.status", "export_command", "Write the answers that a job has so far."),
        "clean": ("umbel.cli.status", "clean_command", "Remove what a complete job has left beside its output."),
        "bench": ("umbel.cli.bench", "bench_command", "Compare with other engines on the same workloads."),
        "lab": ("umbel.cli.lab", "lab_command", "Measure what lossy techniques do to answers, and save."),
        "verify": ("umbel.cli.verify", "verify_command", "Check an output file against its input."),
        "completion": ("umbel.cli.completion", "completion_command", "Print a script that completes in a shell."),
    }
)

PASSED_ON = MappingProxyType(
    {  # commands of other packages, which read their arguments themselves
        "lm-eval": ("umbel.cli.lm_eval", "lm_eval_command", "Evaluate by lm-evaluation-harness, through this engine."),
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, that of this process if none is given; returns the exit code."""
    if arguments is not None:
        return _guarded(lambda: _run(list(arguments), own_process=False))
    given = sys.argv[1:]
    await_stops(resumable=given[:1] == ["run"])
    show_what_can_be_shown()
    return finish(_guarded(lambda: _run(given, own_process=True)))


def _run(given: list[str], *, own_process: bool) -> int:
    if given[:1] == ["help"] and len(given) > 1:
        given = [given[1], "--help"]
    if not given or given[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if given else USAGE
    if given[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"umbel {version('umbel')}")
        return 0
    if given[0] in PASSED_ON:
        return _pass_on(given[0], given[1:])
    if given[0] not in COMMANDS:
        from umbel.errors import nearest

        what = "option" if given[0].startswith("-") else "command"
        return _fail(f"no {what} {given[0]!r}{nearest(given[0], [*COMMANDS, *PASSED_ON])}; see umbel --help", USAGE)
    return _call(given[0], given[1:], own_process=own_process)


def _call(name: str, arguments: Sequence[str], *, own_process: bool) -> int:
    from importlib import import_module

    from umbel.cli.arguments import call

    module, function, _ = COMMANDS[name]
    try:
        command = getattr(import_module(module), function)
        return call(command, arguments, f"umbel {name}", own_process=own_process, typed=(name, *arguments))
    except SystemExit as end:  # --help
        return end.code if isinstance(end.code, int) else INTERNAL


def _pass_on(name: str, arguments: Sequence[str]) -> int:
    from importlib import import_module

    module, function, _ = PASSED_ON[name]
    command: Callable[[Sequence[str]], int] = getattr(import_module(module), function)
    try:
        return command(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else INTERNAL


def _guarded(act: Callable[[], int]) -> int:
    from umbel.errors import UmbelError

    try:
        return act()
    except UmbelError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output left; nothing more to say
        return READER_LEFT
    except OSError as error:  # what a system refuses at a place that did not expect it
        return _fail(str(error), INTERNAL)


def _fail(message: str, code: int) -> int:
    with suppress(OSError):  # the reader may be gone
        print(f"umbel: {message}", file=sys.stderr)
    return code


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {brief}" for name, (_, _, brief) in (*COMMANDS.items(), *PASSED_ON.items())]
    head = ["Usage: umbel COMMAND ...", "", "The batch query engine for large language models.", "", "Commands:"]
    tail = ["", "umbel COMMAND --help, or umbel help COMMAND, shows a command's options; umbel --version the version."]
    tail += [
        "Exit codes of every command: 0 done, 1 internal error, 2 usage, 130 Ctrl-C, 141 the reader of the output left."
    ]
    return "\n".join([*head, *lines, *tail])


if __name__ == "__main__":
    sys.exit(main())

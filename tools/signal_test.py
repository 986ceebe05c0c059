"""Presses Ctrl-C at random moments of `umbel run`, on a terminal and off it, and looks at how the command ends.

    nice python tools/signal_test.py --runs 300

Of the runs a third each gets none, one and two. Exit codes must be the documented ones, nothing may be shown that comes
from a crash, an output is there whole or not at all, and the same command ends with the bytes of an undisturbed run.
Prints a table of exit codes, and the runs that were not good; exit code 0 when all were.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

DOCUMENTED = {0: (0,), 1: (0, 75), 2: (0, 75, 130)}  # exit codes by how often Ctrl-C was pressed
NOISE = (b"Traceback", b"terminate called", b"Aborted", b"Exception ignored", b"Fatal", b"mend the disk")
# Makes the terminal on stdin the one whose Ctrl-C this process gets, then becomes the command.
CONTROLLED = "import os, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True)
class Trial:
    """One run: where, when Ctrl-C was pressed (seconds from its start), whether one came before Umbel had begun to
    listen (Python itself was starting then), its exit code, and what was wrong with it."""

    on_terminal: bool
    moments: tuple[float, ...]
    early: bool
    code: int
    wrong: tuple[str, ...]


def make_input(path: Path, rows: int) -> None:
    """Rows of one beginning and of different lengths."""
    lines = [{"custom_id": f"r{i}", "prompt": f"Once upon a time {i}", "max_tokens": 4 + i % 9} for i in range(rows)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def command(source: Path, output: Path, model: str) -> list[str]:
    """The command line under test."""
    given = ["run", str(source), "-o", str(output), "--model", model, "--dtype", "float32", "--threads", "1"]
    return [sys.executable, "-m", "umbel.cli.main", *given]


class Run:
    """A process under test; `press` is Ctrl-C."""

    def __init__(self, words: list[str], *, on_terminal: bool):
        self.master: int | None = None
        if on_terminal:
            self.master, terminal = pty.openpty()
            words, streams = (
                [sys.executable, "-S", "-c", CONTROLLED, *words],
                dict.fromkeys(("stdin", "stdout"), terminal),
            )
        else:
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        environment = {**os.environ, "TERM": "xterm"}
        self.process = subprocess.Popen(
            words, **streams, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        if on_terminal:
            os.close(terminal)

    def press(self) -> bool:
        """Press Ctrl-C; whether Umbel listens by then, which is when SIGTERM has a handler."""
        listens = True
        with suppress(OSError, StopIteration):
            status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            caught = next(line for line in status if line.startswith("SigCgt")).split()[1]
            listens = bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
        with suppress(OSError):
            if self.master is None:
                self.process.send_signal(signal.SIGINT)
            else:
                os.write(self.master, b"\x03")
        return listens

    def end(self) -> tuple[int, bytes]:
        """Exit code, and all that was shown."""
        shown = b""
        if self.master is None:
            shown = self.process.communicate(timeout=600)[0]
        else:
            with suppress(OSError):  # which is how Linux says that the terminal's other side was closed
                while part := os.read(self.master, 1 << 16):
                    shown += part
            os.close(self.master)
        return self.process.wait(600), shown


def trial(place: Path, moments: tuple[float, ...], expected: bytes, model: str, *, on_terminal: bool) -> Trial:
    """One run, and the same command again where it was stopped."""
    output = place / "out.jsonl"
    words, early = command(place.parent / "in.jsonl", output, model), False
    run, began = Run(words, on_terminal=on_terminal), time.monotonic()
    for moment in moments:
        with suppress(subprocess.TimeoutExpired):
            run.process.wait(max(0.0, began + moment - time.monotonic()))
        early |= run.process.poll() is None and not run.press()
    code, shown = run.end()
    wrong = [] if early else [noise.decode() for noise in NOISE if noise in shown]
    if not early and code not in DOCUMENTED[len(moments)]:
        wrong.append(f"exit code {code}: {shown[-500:]!r}")
    if code == 0 or output.exists():
        wrong += [] if output.exists() and output.read_bytes() == expected else ["another output"]
    if code != 0:
        again, shown = Run(words, on_terminal=False).end()
        if again != 0 or output.read_bytes() != expected:
            wrong.append(f"the same command again ended with {again}: {shown[-500:]!r}")
    return Trial(on_terminal, moments, early, code, tuple(wrong))


def trials(options: argparse.Namespace, directory: Path) -> list[Trial]:
    """All of them, a few at a time."""
    rng, source, whole = random.Random(options.seed), directory / "in.jsonl", directory / "whole.jsonl"
    make_input(source, options.rows)
    seconds = []
    for _ in range(2):  # the first one reads the libraries from the disk
        began = time.monotonic()
        whole.unlink(missing_ok=True)
        whole.with_name("whole.jsonl.umbel").unlink(missing_ok=True)
        code, shown = Run(command(source, whole, options.model), on_terminal=False).end()
        seconds.append(time.monotonic() - began)
        assert code == 0, shown.decode(errors="replace")
    print(f"undisturbed: {seconds[-1]:.2f} s; seed {options.seed}", flush=True)

    def one(number: int, moments: tuple[float, ...]) -> Trial:
        place = directory / str(number)
        place.mkdir()
        return trial(place, moments, whole.read_bytes(), options.model, on_terminal=number % 2 == 0)

    with ThreadPoolExecutor(options.jobs) as pool:
        waiting = []
        for number in range(2 * options.runs):
            moments = sorted(rng.uniform(0.0, seconds[-1]) for _ in range(number // 2 % 3))
            waiting.append(pool.submit(one, number, tuple(moments)))
        found = []
        for number, future in enumerate(waiting):
            found.append(future.result())
            if found[-1].wrong:
                print(f"run {number}: {found[-1]}", flush=True)
    return found


def show(found: list[Trial]) -> None:
    """The table of exit codes."""
    counts = Counter((t.on_terminal, len(t.moments), t.early, t.code) for t in found)
    print("terminal  Ctrl-C  exit code  runs")
    for (on_terminal, presses, early, code), count in sorted(counts.items()):
        note = "  (while Python itself was starting)" if early else ""
        print(f"{'yes' if on_terminal else 'no':<8}  {presses:>6}  {code:>9}  {count:>4}{note}")


def main(arguments: list[str] | None = None) -> int:
    """All trials; 0 when all are good."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300, help="on a terminal, and as many off it")
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        found = trials(options, Path(place))
    show(found)
    good = sum(not t.wrong for t in found)
    print(f"{good} of {len(found)} good")
    return 0 if good == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())

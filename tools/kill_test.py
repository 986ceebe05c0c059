"""Kills `umbel run` at random moments, resumes it, and holds the output to that of an uninterrupted run, byte for byte.

    python tools/kill_test.py --model demo --rows 2000 --kills 25 --terms 5

With `--whole="--speculate off" -- --speculate ngram` the uninterrupted run has other arguments than those that are
killed and resumed, which must give the same bytes all the same.

Prints a table, one line per kill; exit code 0 when every output is equal and sound.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TOPICS = ("the weather", "a football match", "a new phone", "a train journey", "bread", "the sea", "a small dog")
WHOLE = "whole.jsonl"  # what the uninterrupted run writes
WORDS = ("good", "bad", "slow", "quick", "warm", "cold", "old", "new", "bright", "quiet", "loud", "plain", "late")


@dataclass(frozen=True)
class Trial:
    """One interrupted run: when and how it was stopped, what the stop and the resumed run gave."""

    signal: str
    after_s: float
    stopped_rc: int
    stop_s: float
    kept_rows: int
    resumed_rc: int
    equal: bool
    sound: bool

    @property
    def good(self) -> bool:
        """Same bytes, sound, and the stop came as promised (unless the run had ended by then)."""
        # The run may have ended by then; a TERM that comes before Python has begun to listen ends it the hard way.
        codes = {"KILL": (-9, 0), "TERM": (75, 0) if self.kept_rows else (75, 0, -15), "TIME": (5, 0)}[self.signal]
        return self.equal and self.sound and self.resumed_rc == 0 and self.stopped_rc in codes and self.stop_s <= 10


def make_input(path: Path, rows: int, seed: int, padding: int) -> None:
    """Rows with shared beginnings, own seeds and lengths; a few samples and a few chats among them.

    `padding` bytes of an unused field make each row longer, and a file of some size run in windows.
    """
    rng = random.Random(seed)
    with open(path, "w", encoding="utf-8") as stream:
        for i in range(rows):
            text = f"Topic: {rng.choice(TOPICS)}. Write about it: {' '.join(rng.choices(WORDS, k=rng.randint(3, 20)))}."
            row: dict[str, object] = {"custom_id": f"row-{i}", "max_tokens": rng.randint(4, 24), "seed": i}
            row |= {"messages": [{"role": "user", "content": text}]} if i % 5 == 0 else {"prompt": text}
            if i % 17 == 0:
                row["n"] = 3
            if padding:
                row["note"] = "x" * padding
            stream.write(json.dumps(row) + "\n")


def command(source: Path, output: Path, arguments: argparse.Namespace) -> list[str]:
    """The command line under test."""
    extra = arguments.extra if arguments.whole is None or output.name != WHOLE else shlex.split(arguments.whole)
    given = [str(source), "-o", str(output), "--model", arguments.model, "--dtype", "float32"]
    given += ["--temperature", "0.8", "--seed", "7", "--summary", f"{output}.summary"]
    given += ["--threads", str(arguments.threads), *extra]
    return [sys.executable, "-m", "umbel.cli.main", "run", *given]


def finish(source: Path, output: Path, arguments: argparse.Namespace) -> tuple[int, float]:
    """Run to the end; returns exit code and seconds."""
    began = time.monotonic()
    done = subprocess.run(command(source, output, arguments), capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        print(done.stderr, file=sys.stderr)
    return done.returncode, time.monotonic() - began


def trial(name: str, after: float, source: Path, expected: bytes, output: Path, arguments: argparse.Namespace) -> Trial:
    """Stop a run after some seconds, resume it, compare."""
    process = subprocess.Popen(command(source, output, arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(getattr(signal, f"SIG{name}"))
    asked = time.monotonic()
    stopped = process.wait()
    stop_s = time.monotonic() - asked
    resumed, _ = finish(source, output, arguments)
    summary = json.loads(Path(f"{output}.summary").read_text())
    check = [sys.executable, "-m", "umbel.cli.main", "verify", str(source), str(output)]
    sound = subprocess.run(check, capture_output=True, check=False).returncode == 0
    equal = output.exists() and output.read_bytes() == expected
    return Trial(name, after, stopped, stop_s, summary["resumed"], resumed, equal, sound)


def timed_trial(seconds: float, source: Path, expected: bytes, output: Path, arguments: argparse.Namespace) -> Trial:
    """End a run by its own deadline, look at what it left, resume it, compare."""
    began = time.monotonic()
    run = [*command(source, output, arguments), "--deadline", f"{seconds:.1f}"]
    stopped = subprocess.run(run, capture_output=True, check=False).returncode
    late = time.monotonic() - began - seconds
    check = [sys.executable, "-m", "umbel.cli.main", "verify", str(source), str(output)]
    partial = subprocess.run(check, capture_output=True, check=False).returncode
    resumed, _ = finish(source, output, arguments)
    summary = json.loads(Path(f"{output}.summary").read_text())
    sound = subprocess.run(check, capture_output=True, check=False).returncode == 0
    sound = sound and partial == (3 if stopped == 5 else 0)
    equal = output.exists() and output.read_bytes() == expected
    return Trial("TIME", seconds, stopped, max(0.0, late), summary["resumed"], resumed, equal, sound)


def show(number: int, t: Trial) -> None:
    """One line of the table."""
    told = f"{number:>3}  {t.signal:<4}  {t.after_s:>7.2f}  {t.stopped_rc:>4}  {t.stop_s:>6.2f}  {t.kept_rows:>6}"
    print(
        f"{told}  {t.resumed_rc:>6}  {'equal' if t.equal else 'DIFFERS':<7}  {'yes' if t.sound else 'NO'}", flush=True
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--terms", type=int, default=5)
    parser.add_argument("--deadlines", type=int, default=2)
    parser.add_argument("--padding", type=int, default=0, help="bytes that make each row longer; 9000: windows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lead-in", type=float, default=0.0, help="seconds at the start in which no kill falls")
    parser.add_argument("--last", type=float, default=1.0, help="share of the run's time in which the kills fall")
    parser.add_argument("--whole", help="arguments of the uninterrupted run, in place of the ones after --")
    parser.add_argument("extra", nargs="*", help="more arguments for umbel run, after --")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """All trials; 0 when all are good."""
    options = parse(arguments)
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        source, whole = directory / "in.jsonl", directory / WHOLE
        make_input(source, options.rows, options.seed, options.padding)
        code, seconds = finish(source, whole, options)
        if code != 0:
            print(f"the uninterrupted run ended with {code}", file=sys.stderr)
            return 1
        print(f"{options.rows} rows, uninterrupted in {seconds:.1f} s; {whole.stat().st_size:,} bytes")
        print(" no  stop  after s    rc  took s  kept     resume  output   sound")
        good = 0
        names = ["KILL"] * options.kills + ["TERM"] * options.terms + ["TIME"] * options.deadlines
        for number, name in enumerate(names, 1):
            output, after = directory / f"out-{number}.jsonl", rng.uniform(options.lead_in, seconds * options.last)
            if name == "TIME":
                result = timed_trial(max(1.0, after), source, whole.read_bytes(), output, options)
            else:
                result = trial(name, after, source, whole.read_bytes(), output, options)
            show(number, result)
            good += result.good
    total = len(names)
    print(f"{good} of {total} good")
    return 0 if good == total else 1


if __name__ == "__main__":
    sys.exit(main())

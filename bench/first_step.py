"""How soon the engine takes its first step on a large file: `python bench/first_step.py [--rows N]`.

Makes a file of short rows that share in three levels, shuffled, runs `umbel run` on it in a process of its own and ends
it after the first step. Prints seconds since that process began, and how long loading weights took of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORDS = ("river", "stone", "green", "seven", "light", "paper", "cloud", "music", "table", "house", "north", "early")


def write_rows(path: Path, rows: int, seed: int) -> None:
    """Ten beginnings, a thousand contexts below each, then a question each; in no order."""
    rng = random.Random(seed)
    tops = [" ".join(rng.choices(WORDS, k=12)) for _ in range(10)]
    middles = [" ".join(rng.choices(WORDS, k=8)) for _ in range(max(1, rows // 100))]
    with path.open("w") as out:
        for i in range(rows):
            j = rng.randrange(len(middles))
            prompt = f"{tops[j % 10]}\n{middles[j]}\nIs {i} {rng.choice(WORDS)}?"
            out.write(json.dumps({"custom_id": f"row-{i}", "prompt": prompt, "max_tokens": 4}) + "\n")


def run_until_first_step(arguments: list[str]) -> None:
    """In the process that is measured: `umbel run`, ended after its first step; prints its times as one JSON object."""
    from umbel.batch import loading as assemble
    from umbel.cli import main
    from umbel.cli.run import process_start

    began, load = process_start(), assemble._load
    times: dict[str, float] = {"command": time.monotonic() - began}

    def timed_load(*given: Any) -> Any:
        times["rows known, load begins"] = time.monotonic() - began
        from umbel.models import shards
        from umbel.runner.torch_runner import TorchRunner

        decoder, begin = shards.Decoder, TorchRunner.start

        def timed_decoder(*given: Any) -> Any:
            start = time.monotonic()
            made = decoder(*given)
            times["of it loading weights"] = time.monotonic() - start
            return made

        def last_step(runner: TorchRunner, step: Any) -> Any:
            times["first window planned"] = time.monotonic() - began
            begin(runner, step)
            times["first step done"] = time.monotonic() - began
            used = os.times()  # on a busy machine processor time tells more than the clock
            times["of processor time"] = used.user + used.system
            times["and in the scanning process"] = used.children_user + used.children_system
            print(json.dumps(times), flush=True)
            os._exit(0)

        shards.Decoder, TorchRunner.start = timed_decoder, last_step  # type: ignore[method-assign]
        engine = load(*given)
        times["loaded"] = time.monotonic() - began
        return engine

    assemble._load = timed_load
    main.main(["run", *arguments])


def main() -> None:
    """Measure some runs, each of a fresh process."""
    if sys.argv[1:2] == ["--child"]:
        run_until_first_step(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.jsonl")
        write_rows(source, asked.rows, 0)
        print(f"{asked.rows:,} rows, {source.stat().st_size / 2**20:,.0f} MiB")
        for i in range(asked.runs):
            given = [str(source), "-o", str(Path(folder, f"out-{i}")), "--model", asked.model, "-q"]
            command = [sys.executable, __file__, "--child", *given]
            told = subprocess.run(command, capture_output=True, text=True, check=False)
            if told.returncode:
                sys.exit(told.stderr)
            times: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
            print(", ".join(f"{name} {seconds:.2f} s" for name, seconds in times.items()))


if __name__ == "__main__":
    main()

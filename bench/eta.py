"""How right the time is that a running job says is left: python -m bench.eta [--model demo] [--rows 150].

Ten jobs of different kinds, each read four times a second while it runs. When it is over, the error of each reading
from a tenth of the job on is known: |left as said - left in truth| / left in truth. Prints a line for each job; exit
code 0 when the median over the jobs of their median errors is at most 20 %.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from umbel.batch.engine_options import EngineOptions
from umbel.batch.job_options import JobOptions, OutputOptions
from umbel.batch.job_setup import build_job
from umbel.jobs.progress import Progress, Reading
from umbel.jobs.read.inputs import InputFile

EVERY_SECONDS = 0.25
FROM, TO = (
    0.1,
    0.95,
)  # shares of the running time; in the last moments a tenth of a second is a large share of what is left
MOST_ERROR = 0.2
JOBS = ("short", "long", "limits", "unbound", "samples", "twins", "shared", "prompts", "mixed", "few")


def rows_of(kind: str, count: int) -> list[dict[str, Any]]:
    """The rows of a job."""
    rng = random.Random(kind)
    words = ("good", "bad", "slow", "quick", "warm", "cold", "old", "new")

    def text(least: int, most: int) -> str:
        return " ".join(rng.choices(words, k=rng.randint(least, most)))

    makes: dict[str, Any] = {
        "short": lambda i: {"prompt": text(4, 9), "max_tokens": 12},
        "long": lambda i: {"prompt": text(4, 9), "max_tokens": 300, "ignore_eos": True},
        "limits": lambda i: {"prompt": text(4, 9), "max_tokens": rng.randint(4, 400)},
        "unbound": lambda i: {"prompt": text(4, 9)},
        "samples": lambda i: {"prompt": text(4, 9), "max_tokens": 150, "n": rng.choice((1, 4))},
        "twins": lambda i: {"prompt": f"about {i % 40}", "max_tokens": 200, "temperature": 0},
        "shared": lambda i: {"prompt": "good " * 100 + text(3, 6), "max_tokens": 80},
        "prompts": lambda i: {"prompt": text(100, 300), "max_tokens": 4},
        "mixed": lambda i: {"prompt": text(2, 200), "max_tokens": rng.choice((3, 400))},
        "few": lambda i: {"prompt": text(4, 9), "max_tokens": 400} if i < 8 else None,
    }
    return [row for i in range(count) if (row := makes[kind](i)) is not None]


def readings(source: Path, output: Path, model: str) -> tuple[list[tuple[float, Reading]], float]:
    """What a job said while it ran, each with its time, and when it was over."""
    engine = EngineOptions(dtype="float32", threads=1)
    asked = JobOptions(model, [str(source)], engine=engine, output=OutputOptions(str(output)))
    job = build_job(asked, (InputFile.of(source),))
    found: list[tuple[float, Reading]] = []
    over = threading.Event()

    def look(progress: Progress) -> None:
        while not over.wait(EVERY_SECONDS):
            found.append((time.monotonic(), progress.reading()))

    thread = threading.Thread(target=look, args=(job.progress,))
    thread.start()
    try:
        job.run()
    finally:
        over.set()
        thread.join()
    running = [one for one in found if one[1].phase == "run"]
    begun = running[0][0] - running[0][1].elapsed_seconds if running else 0.0
    return running, begun + job.progress.seconds["run"]


def errors(found: list[tuple[float, Reading]], end: float) -> list[float]:
    """The errors of the readings that count."""
    begun = found[0][0] - found[0][1].elapsed_seconds
    counted = []
    for at, reading in found:
        share, left = (at - begun) / (end - begun), end - at
        if FROM <= share <= TO:
            said = reading.eta_seconds
            counted.append(1.0 if said is None else abs(said - left) / left)
    return counted


def main(arguments: list[str] | None = None) -> int:
    """All jobs; 0 when the median error is small enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rows", type=int, default=150)
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), choices=JOBS)
    options = parser.parse_args(arguments)
    medians = []
    print(f"{'job':<10} {'rows':>5} {'seconds':>8} {'readings':>9} {'median error':>13}")
    with tempfile.TemporaryDirectory() as place:
        for kind in options.jobs:
            source, rows = Path(place, f"{kind}.jsonl"), rows_of(kind, options.rows)
            source.write_text("".join(json.dumps(row) + "\n" for row in rows))
            found, end = readings(source, Path(place, f"{kind}.out.jsonl"), options.model)
            counted = errors(found, end) if found else []
            if not counted:
                print(f"{kind:<10} {len(rows):>5} {'too short to be read':>32}")
                continue
            medians.append(statistics.median(counted))
            seconds = end - found[0][0] + found[0][1].elapsed_seconds
            print(f"{kind:<10} {len(rows):>5} {seconds:>8.1f} {len(counted):>9} {medians[-1]:>13.0%}", flush=True)
    whole = statistics.median(medians) if medians else 1.0
    print(f"median of {len(medians)} jobs: {whole:.0%}")
    return 0 if whole <= MOST_ERROR else 1


if __name__ == "__main__":
    sys.exit(main())

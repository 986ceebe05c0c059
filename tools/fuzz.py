"""The long form of tests/fuzz: new seeds, each in a process of its own, for as long as asked.

    python -m tools.fuzz --seconds 3600 [--seed 1] [--folder faults] [reader...]

The readers are those of tests/fuzz/readers.py (default: all of them). A crash, a hang or a reader out of memory ends
one process only; its input lies in the folder, and the run goes on. Exit code 1 when a fault was found.
"""

from __future__ import annotations

import argparse
import json
import resource
import secrets
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, cycle
from pathlib import Path
from typing import Any

import hypothesis

from tests.fuzz.readers import READERS

MAX_MEMORY_BYTES = 4 * 2**30
MAX_PROCESS_SECONDS = 900
EXAMPLES = 200


def work(name: str, seed: int, examples: int, current: Path) -> dict[str, Any]:
    """Run a reader's test on new examples in this process; the one in hand is in the file `current` all the time."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    (inputs, check), tally = READERS[name], Counter[str]()

    def counted(case: Any) -> None:
        tally["inputs"] += 1
        tally["lines"] += sum(data.count(b"\n") for data in _bytes_in(case))
        current.write_text(repr(case), "utf-8", "backslashreplace")
        check(case)

    phases = (hypothesis.Phase.generate, hypothesis.Phase.shrink)
    settings = hypothesis.settings(
        max_examples=examples, database=None, deadline=None, phases=phases, suppress_health_check=hypothesis.HealthCheck
    )
    try:
        hypothesis.seed(seed)(settings(hypothesis.given(inputs)(counted)))()
        fault = None
    except Exception:
        fault = traceback.format_exc()
    return {**tally, "fault": fault}


def _bytes_in(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _bytes_in(entry)
    elif isinstance(value, dict):
        yield from _bytes_in(list(value.values()))


def run_one(name: str, seed: int, folder: Path, tally: Counter[str]) -> str | None:
    """Run one process, add to the tally, and give the fault that it met."""
    with tempfile.TemporaryDirectory() as scratch:
        current, report = Path(scratch) / "current", Path(scratch) / "report"
        command = [sys.executable, "-m", "tools.fuzz", "--worker", str(report), "--seed", str(seed), name]
        try:
            done = subprocess.run(command, capture_output=True, timeout=MAX_PROCESS_SECONDS, check=False)
            died = done.stderr.decode("utf-8", "replace")[-20_000:] or f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            died = f"no end within {MAX_PROCESS_SECONDS} s"
        result = json.loads(report.read_text()) if report.exists() else {"fault": died}
        tally.update({key: result.get(key, 0) for key in ("inputs", "lines")})
        fault: str | None = result["fault"]
        if fault:
            folder.mkdir(parents=True, exist_ok=True)
            text = current.read_text() if current.exists() else ""
            (folder / f"{name}-{seed}.txt").write_text(f"{fault}\n\nlast input: {text}\n")
        return fault


def _brief(fault: str) -> str:
    lines = [line for line in fault.splitlines() if "Fault: " in line or "Error" in line]
    return (lines or fault.splitlines() or ["?"])[-1][:200]


def run(names: list[str], seconds: float, seed: int, folder: Path) -> int:
    """One reader after the other, each time with the next seed, until the time is over or Ctrl-C."""
    began, tally, faults = time.monotonic(), Counter[str](), Counter[str]()
    print(f"seed {seed}, readers: {' '.join(names)}", flush=True)
    with suppress(KeyboardInterrupt):
        for name, each in zip(cycle(names), count(seed), strict=False):
            if time.monotonic() - began >= seconds:
                break
            fault = run_one(name, each, folder, tally)
            if fault:
                faults[f"{name}: {_brief(fault)}"] += 1
                print(f"fault: --seed {each} {name}: {_brief(fault)}", flush=True)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    hours = (usage.ru_utime + usage.ru_stime) / 3600
    print(f"{tally['inputs']:,} inputs, {tally['lines']:,} lines, {hours:.2f} CPU-hours, {len(faults)} kinds of fault")
    for what, n in faults.most_common():
        print(f"{n:>6}  {what}")
    return 1 if faults else 0


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", help="which readers (default: all)")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None, help="of the first process; the next ones count up from it")
    parser.add_argument("--folder", type=Path, default=Path("faults"), help="where inputs that fail are kept")
    parser.add_argument("--worker", type=Path, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    unknown = set(given.readers) - set(READERS)
    if unknown:
        parser.error(f"no reader {', '.join(sorted(unknown))}; there are {', '.join(sorted(READERS))}")
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    if given.worker is None:
        return run(given.readers or sorted(READERS), given.seconds, seed, given.folder)
    result = work(given.readers[0], seed, EXAMPLES, given.worker.with_name("current"))
    given.worker.write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

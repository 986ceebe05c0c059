"""Times whole commands: from the start of a process to the last answer on disk."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from umbel.bench.engines import Contestant, environment, python_for
from umbel.bench.fleet import BenchSetup, Say, launch, load, run
from umbel.bench.process import EngineError
from umbel.bench.record import Record, now
from umbel.bench.rounds import answers_path, rows_path
from umbel.bench.sources import SeededWorkload
from umbel.bench.workloads import Row, write_rows
from umbel.errors import UsageError


def run_whole(
    cases: Sequence[SeededWorkload],
    engines: Sequence[Contestant],
    setup: BenchSetup,
    record: Record,
    repeats: int,
    seed: int,
    say: Say,
) -> None:
    """Time every engine's whole command on every workload, in turn; a pair that failed is not run again."""
    given_up = {(f["engine"], case.name) for f in record.failures for case in cases if f["case"] in (None, case.name)}
    for number in range(repeats):
        for case in cases:
            for engine in engines:
                if (engine.name, case.name) in given_up:
                    continue
                place = {"round": number, "seed": seed + number, "case": case.name, "engine": engine.name}
                try:
                    seconds = whole_command(engine, case, seed + number, setup)
                except (EngineError, UsageError) as error:
                    given_up.add((engine.name, case.name))
                    record.failures.append({**place, "why": f"whole command: {error}", "at": now()})
                    say(f"failed: {engine.name}, whole command on {case.name}: {error}")
                    continue
                record.whole.append({**place, "seconds": seconds, "at": now()})
                record.save()
                say(f"whole {number + 1}  {case.name:<10} {engine.name:<22} {seconds:8.2f} s")


def whole_command(engine: Contestant, case: SeededWorkload, seed: int, setup: BenchSetup) -> float:
    """Seconds of one command. Umbel's is `umbel run`; a peer's starts its interpreter, loads, runs and writes."""
    rows = case.rows(seed)
    path, out = rows_path(setup.folder, case.name, seed), answers_path(setup.folder, case.name, engine.name, seed)
    write_rows(path, rows)
    try:
        if engine.key == "umbel":
            return _umbel_run(engine, rows, out, setup)
        return _adapter(engine, path, out, setup)
    finally:
        out.unlink(missing_ok=True)


def _adapter(engine: Contestant, rows: Path, out: Path, setup: BenchSetup) -> float:
    python = python_for(engine, setup.peers)
    begin = time.perf_counter()
    process = launch(engine.name, engine.base, python, setup)
    try:
        load(process, engine, setup)
        run(process, rows, out, is_sorted=engine.is_sorted, timeout=setup.timeout)
        return time.perf_counter() - begin
    finally:
        process.stop()


def _umbel_run(engine: Contestant, rows: Sequence[Row], out: Path, setup: BenchSetup) -> float:
    job = setup.folder / "whole-job.jsonl"
    ordered = sorted(rows, key=lambda row: list(row.prompt)) if engine.is_sorted else rows
    with job.open("w", encoding="utf-8") as lines:
        for row in ordered:
            lines.write(json.dumps({**asdict(row), "ignore_eos": True}) + "\n")
    command = [sys.executable, "-m", "umbel.cli.main", "run", str(job), "-o", str(out), "-m", str(setup.model)]
    command += ["--dtype", setup.dtype, "--threads", str(setup.threads), "--overwrite", "--quiet"]
    for name, value in engine.settings.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    begin = time.perf_counter()
    variables = environment(engine.base, sys.executable, setup.threads)
    try:
        ended = subprocess.run(command, env=variables, capture_output=True, timeout=setup.timeout, check=False)
    except subprocess.TimeoutExpired:
        raise EngineError(f"{engine.name}: umbel run took more than {setup.timeout:,.0f} s") from None
    seconds = time.perf_counter() - begin
    if ended.returncode != 0:
        raise EngineError(f"{engine.name}: umbel run: exit code {ended.returncode}: {ended.stderr.decode()[-500:]}")
    return seconds

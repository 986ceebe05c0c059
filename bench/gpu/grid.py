"""The part `grid`: BatchLLM's grid, Umbel against vLLM, one engine at a time in a process of its own.

Rows come shuffled or sorted, the KV pool is as large as the memory allows ("whole") or 0.40 M tokens ("capped"). Every
row says 100 tokens, whatever the model says; seconds run from the first prompt given to the last token got, with the
model loaded and everything compiled. The seconds that are left decide how many rows a workload has, unless --rows
does; `prefixes` is how many tokens all shared prefixes are, to be held against the pool: where they fit into it, no
engine has to compute one twice.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.gpu.model import shape_of, write_config
from bench.gpu.points import APART, GRID, OUTPUT, POOL, ROWS, SMALL, Point, parse_point
from bench.gpu.predict import geometric
from bench.gpu.stage import Stage
from umbel.bench.engines import ADAPTERS, BASES, environment
from umbel.bench.process import EngineError, EngineProcess
from umbel.cost.shape import Shape

VLLM: Mapping[str, Any] = {
    "load_format": "dummy", "skip_tokenizer_init": True, "gpu_memory_utilization": 0.92, "enable_chunked_prefill": True,
    "max_num_seqs": 1024, "max_num_batched_tokens": 16384,
}  # fmt: skip
LOADING = {"umbel": 25.0, "vllm": 110.0}  # seconds that a start may take, compiling included
PAGE = 16
LEAST_GROUPS = 4
SMALL_POOL = 400
WARM_ROWS = 32
LOG_BYTES = 200_000  # kept of what an engine that failed has printed


@dataclass(frozen=True, slots=True)
class Arm:
    """An order of rows and a pool."""

    order: str
    pool: str

    @property
    def name(self) -> str:
        """As --arms and the tables call it."""
        return f"{self.order}/{self.pool}"


ARMS = (Arm("shuffled", "capped"), Arm("shuffled", "whole"), Arm("sorted", "whole"), Arm("sorted", "capped"))


@dataclass(frozen=True, slots=True)
class Task:
    """One run: rows in a file, in an order."""

    point: Point
    arm: Arm
    rows: int
    path: Path

    def __str__(self) -> str:
        return f"{self.point.name}, {self.arm.name}"


Times = dict[tuple[str, str, str], float]  # point, arm, engine -> seconds


def run_grid(stage: Stage) -> None:
    """Every workload on every engine that is here."""
    engines = ["umbel", *(["vllm"] if _has_vllm(stage) else [])]
    if len(engines) == 1:
        stage.found.note("vLLM is not installed" if "vllm" in stage.asked.peers else "vLLM was not asked for")
    directory = write_config(stage.scratch / "model", shape_of(stage))
    tasks = list(_tasks(stage, engines))
    times: Times = {}
    for pool in dict.fromkeys(task.arm.pool for task in tasks):
        mine = [task for task in tasks if task.arm.pool == pool]
        for engine in stage.each(f"engines with the pool {pool}", engines, 0.0 if stage.small else 40.0):
            try:
                _run_engine(stage, engine, pool, directory, mine, times)
            except EngineError as error:
                _say_failed(stage, engine, pool, error)
        _say_ratios(stage, mine, times)
    _say_means(stage, tasks, times)


def _has_vllm(stage: Stage) -> bool:
    return any(p.partition("=")[0] == "vllm" and (p.partition("=")[2] or find_spec("vllm")) for p in stage.asked.peers)


def _tasks(stage: Stage, engines: Sequence[str]) -> Iterator[Task]:
    """What to run, by arm; rows so many that all of it should fit the time."""
    points = tuple(map(parse_point, stage.asked.points)) or (SMALL if stage.small else (*GRID, *APART))
    arms = [arm for arm in ARMS if not stage.asked.arms or arm.name in stage.asked.arms]
    if not stage.asked.arms:
        arms = arms[:3]  # those that something is asked of
    pairs = [(p, a) for a in arms for p in points if p.degree > 1 or a.name == "shuffled/whole"]
    loads = len({arm.pool for arm in arms}) * sum(LOADING[engine] for engine in engines)
    each = (stage.left - loads) / max(len(pairs) * len(engines), 1) * 0.8
    for point, arm in pairs:
        rows = stage.asked.rows or (4 if stage.small else rows_that_fit(stage, point, each))
        yield Task(point, arm, rows, write_rows(stage, point, rows))


def rows_that_fit(stage: Stage, point: Point, seconds: float) -> int:
    """Rows that an engine without any sharing gets through, at half the rate of large products for prompts and a tenth
    for answers; whole groups, at most ROWS."""
    flops = Shape.of(shape_of(stage), "bfloat16").token_flops
    each = flops * (point.tokens / 0.5 + OUTPUT / 0.1) / stage.matmul
    groups = max(LEAST_GROUPS, int(seconds / each) // point.degree)
    return min(groups * point.degree, ROWS)


def write_rows(stage: Stage, point: Point, rows: int, seed: int = 0) -> Path:
    """The file of rows that engines read; the same one for all of them."""
    path = stage.scratch / f"rows-{point.prefix}-{point.own}-{point.degree}-{rows}-{seed}.jsonl"
    if path.exists():
        return path
    output = 4 if stage.small else OUTPUT
    workload, vocab = point.workload(rows, output, seed), shape_of(stage).vocab_size
    with path.open("w", encoding="utf-8") as out:
        for i in range(rows):
            row = {
                "id": i,
                "prompt": (workload.prompt(i) % vocab).tolist(),
                "max_tokens": output,
                "n": 1,
                "temperature": 0.0,
            }
            out.write(json.dumps(row, separators=(",", ":")) + "\n")
    return path


def _run_engine(stage: Stage, engine: str, pool: str, directory: Path, tasks: Sequence[Task], times: Times) -> None:
    """Start, warm up, run the tasks, end."""
    python = (
        next((p.partition("=")[2] for p in stage.asked.peers if p.startswith("vllm=")), "") if engine == "vllm" else ""
    )
    command = [python or sys.executable, str(ADAPTERS / BASES[engine].script)]
    around = environment(replace(BASES[engine], preload=False), command[0], os.cpu_count() or 1)
    process = EngineProcess(engine, command, around, stage.scratch / f"{engine}.log")
    try:
        longest = max(task.point.tokens for task in tasks) + OUTPUT + 1
        settings = settings_of(stage, engine, pool)
        ask = {
            "do": "load",
            "model": str(directory),
            "dtype": str(stage.dtype).removeprefix("torch."),
            "longest": longest,
        }
        about = process.ask(ask | {"settings": settings, "threads": os.cpu_count() or 1}, _patience(stage))
        cells = {
            "took s": about["took"],
            "versions": json.dumps(about.get("versions", {})),
            "settings": json.dumps(settings),
        }
        stage.found.row("Engines", engine=engine, pool=pool, **cells)
        for point in dict.fromkeys(task.point for task in tasks):
            if stage.left > 10 or stage.small:
                _ask_run(
                    stage, process, write_rows(stage, point, min(WARM_ROWS, max(t.rows for t in tasks)), seed=1), False
                )
        for task in stage.each(f"runs of {engine}, {pool}", tasks, 0.0 if stage.small else 5.0):
            answer = _ask_run(stage, process, task.path, task.arm.order == "sorted")
            times[task.point.name, task.arm.name, engine] = answer["seconds"]
            rate = (task.point.tokens * task.rows + answer["output_tokens"]) / answer["seconds"]
            stage.found.row(
                "Runs", point=task.point.name, order=task.arm.order, pool=pool, engine=engine, rows=task.rows,
                seconds=answer["seconds"], **{"rows/s": task.rows / answer["seconds"], "tokens in and out/s": rate},
            )  # fmt: skip
    finally:
        process.stop(5.0)


def settings_of(stage: Stage, engine: str, pool: str) -> dict[str, Any]:
    """The settings of an engine with a pool; ours derives everything but the cap."""
    cap = SMALL_POOL if stage.small else POOL
    if engine == "vllm":
        less = {"gpu_memory_utilization": 0.2} if stage.small else {}  # on a CPU it counts the processor's memory
        return {**VLLM, **less, **({"num_gpu_blocks_override": cap // PAGE} if pool == "capped" else {})}
    return {"load_format": "dummy", "device": str(stage.device), **({"kv_tokens": cap} if pool == "capped" else {})}


def _ask_run(stage: Stage, process: EngineProcess, rows: Path, in_order: bool) -> dict[str, Any]:
    out = str(stage.scratch / "answers.jsonl")
    return process.ask({"do": "run", "rows": str(rows), "out": out, "sort": in_order}, _patience(stage))


def _patience(stage: Stage) -> float:
    return max(stage.left, 5.0) if not stage.small else 400.0


def _say_failed(stage: Stage, engine: str, pool: str, error: EngineError) -> None:
    """Keep the end of what the engine has printed; that a peer fails is no fault of ours."""
    log, kept = stage.scratch / f"{engine}.log", stage.found.folder / f"{engine}-{pool}.log"
    if log.exists():
        kept.write_bytes(log.read_bytes()[-LOG_BYTES:])
    if engine == "umbel":
        stage.found.check(f"umbel runs, pool {pool}", False, str(error))
    else:
        stage.found.note(f"{engine}, pool {pool}: {error} ({kept.name} beside the results has the end of it)")


def _say_ratios(stage: Stage, tasks: Sequence[Task], times: Times) -> None:
    for task in tasks:
        key = task.point.name, task.arm.name
        if (*key, "vllm") in times and (*key, "umbel") in times:
            ratio = times[(*key, "vllm")] / times[(*key, "umbel")]
            prefixes = task.point.prefix * -(-task.rows // task.point.degree)
            stage.found.row("vLLM / Umbel", point=key[0], arm=key[1], rows=task.rows, prefixes=prefixes, ratio=ratio)


def _say_means(stage: Stage, tasks: Sequence[Task], times: Times) -> None:
    for arm in dict.fromkeys(task.arm.name for task in tasks):
        names = [t.point.name for t in tasks if t.arm.name == arm and t.point.degree > 1]
        known = [name for name in names if all((name, arm, engine) in times for engine in ("vllm", "umbel"))]
        if known:
            mean = geometric([times[name, arm, "vllm"] / times[name, arm, "umbel"] for name in known])
            stage.found.row("Geometric means", arm=arm, workloads=len(known), of=len(names), **{"vLLM / Umbel": mean})

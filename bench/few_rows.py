"""What a decoding step of few rows costs in engines with weights of 16, 8 and 4 bits, in turn, by processor time.

    python bench/few_rows.py MODEL --engines umbel,umbel:linear=int4+allow_lossy=true,openvino \
        --peer openvino=PYTHON --peer-model openvino=DIR --page docs/int4.md

Rows of 32 tokens that share nothing write `--tokens` tokens. Each round has every engine do so for every number of
rows, and for one token only: the difference, by the tokens between, is a step. Processor time of the engine's process
on one core, as other work on a machine adds to it least; the rate of reading memory is measured between. Prints a
table, and puts it between the marks `few rows` of a page.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch

from umbel.bench.engines import ADAPTERS, Contestant, environment, parse_engine, python_for
from umbel.bench.process import EngineProcess
from umbel.cost.machine import processor_model
from umbel.kernels.memory import empty

PROMPT = 32
MARKS = "<!-- few rows: begin -->", "<!-- few rows: end -->"
Times = dict[tuple[str, int], list[float]]


@dataclass(frozen=True)
class Running:
    """An engine that has loaded its model."""

    engine: Contestant
    process: EngineProcess
    folder: Path

    def seconds(self, rows: int, tokens: int, seed: int) -> float:
        """Processor seconds of a run of its own content."""
        rng, given = random.Random(seed), self.folder / "rows.jsonl"
        asked = [[rng.randrange(3, 30_000) for _ in range(PROMPT)] for _ in range(rows)]
        lines = (json.dumps({"prompt": ids, "max_tokens": tokens, "n": 1, "temperature": 0.0}) for ids in asked)
        given.write_text("\n".join(lines) + "\n")
        before = self.process.processor_seconds()
        ask = {"do": "run", "rows": str(given), "out": str(self.folder / "out.jsonl"), "sort": False}
        answer = self.process.ask(ask, 3600.0)
        assert answer["output_tokens"] == rows * tokens, f"{self.engine.name}: {answer}"
        return self.process.processor_seconds() - before


def start(engine: Contestant, asked: argparse.Namespace, folder: Path) -> Running:
    """The engine's process on one core, with the model loaded and warm."""
    peers, models = (dict(pair.split("=", 1) for pair in given) for given in (asked.peer, asked.peer_model))
    python = python_for(engine, peers)
    command = [python, str(ADAPTERS / engine.base.script)]
    process = EngineProcess(engine.name, command, environment(engine.base, python, 1), folder / "log")
    common = {"work": str(folder), "dtype": "bfloat16", "threads": 1}
    ask = {"do": "prepare", "model": models.get(engine.key, asked.model), **common}
    model = process.ask(ask, 3600.0)["model"]
    process.ask({"do": "load", "model": model, "longest": 512, "settings": dict(engine.settings), **common}, 3600.0)
    running = Running(engine, process, folder)
    running.seconds(1, 4, 0)
    return running


def measured(running: list[Running], asked: argparse.Namespace) -> tuple[Times, float]:
    """Milliseconds of steps by engine and rows, and the best rate of reading, in GB/s."""
    times: Times = defaultdict(list)
    memory, best = empty((1 << 26,), torch.float32, torch.device("cpu")).fill_(1), 0.0  # more than caches hold
    for turn in range(asked.repeats):
        for rows in asked.rows:
            for one in running if turn % 2 == 0 else running[::-1]:
                seed = 1 + 1000 * turn + rows
                whole, first = (one.seconds(rows, tokens, seed + tokens) for tokens in (asked.tokens, 1))
                times[one.engine.name, rows].append((whole - first) / (asked.tokens - 1) * 1e3)
            best = max(best, *(_reading_rate(memory) for _ in range(5)))
    return times, best


def _reading_rate(memory: torch.Tensor) -> float:
    began = time.process_time()
    memory.sum()
    return memory.nbytes / (time.process_time() - began) / 1e9


def table(times: Times, best: float, asked: argparse.Namespace) -> str:
    """The result, as Markdown."""
    first = next(iter(times))[0]
    now = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    weights = sum(path.stat().st_size for path in Path(asked.model).glob("*.safetensors")) / 1e9
    lines = [
        f"{now}, {processor_model()}, one core, {weights:.2f} GB of bfloat16 weights, {asked.repeats} rounds in turn.",
        f"Memory was read at {best:.1f} GB/s at best: those weights in {weights / best * 1e3:.1f} ms. Milliseconds of",
        f"processor time a step, median [least, most], and by how much that is of `{first}`'s, by rounds:",
        "",
        "| engine | " + " | ".join(f"{rows} rows" if rows > 1 else "1 row" for rows in asked.rows) + " |",
        "| --- |" + " ---: |" * len(asked.rows),
    ]
    for name in dict.fromkeys(engine for engine, _ in times):
        cells = (_cell(times[name, rows], times[first, rows]) for rows in asked.rows)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(mine: list[float], firsts: list[float]) -> str:
    ratio = statistics.median(a / b for a, b in zip(mine, firsts, strict=True))
    return f"{statistics.median(mine):.1f} [{min(mine):.1f}, {max(mine):.1f}], {ratio:.2f}"


def write(page: Path, text: str) -> None:
    """Put the text between the marks of a page."""
    before, rest = page.read_text().split(MARKS[0])
    page.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


def main() -> None:
    """Start the engines, measure them in turn, and show the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--engines", default="umbel,umbel:linear=int4+allow_lossy=true")
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--peer-model", action="append", default=[])
    parser.add_argument("--rows", type=lambda text: [int(n) for n in text.split(",")], default=[1, 4, 16])
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--page", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # of the engines, too
    with tempfile.TemporaryDirectory() as folder:
        running: list[Running] = []
        try:
            for i, name in enumerate(asked.engines.split(",")):
                Path(folder, str(i)).mkdir()
                running.append(start(parse_engine(name), asked, Path(folder, str(i))))
            text = table(*measured(running, asked), asked)
        finally:
            for one in running:
                one.process.stop()
    print(text)
    if asked.page is not None:
        write(asked.page, text)


if __name__ == "__main__":
    main()

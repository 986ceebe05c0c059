"""Engines, cases and setups for tests of the harness; nothing is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from umbel.bench.engines import Base, Contestant
from umbel.bench.fleet import BenchSetup
from umbel.bench.floors import floor_of
from umbel.bench.record import Record
from umbel.bench.sources import SeededWorkload
from umbel.bench.workloads import Row, generate
from umbel.ir.spec import ModelSpec

SCRIPT = str(Path(__file__).with_name("fake_engine.py"))
SPEC = ModelSpec("llama", 1000, 64, 2, 4, 2, 16, 128, 4096, 1e-6, 1e4, tied_embeddings=True)
ABOUT = {
    "format": 1,
    "date": "2026-11-21T10:00:00Z",
    "command": ["umbel", "bench"],
    "commit": "abc",
    "versions": {"umbel": "1"},
    "machine": {"processor": "P", "cores": 2, "memory_bytes": 2**34, "system": "S"},
    "model": {"name": "m", "dtype": "float32"},
    "settings": {"threads": 2, "repeats": 2, "seed": 101},
}


def engine(name: str, *, forgets: bool = True, warm_every: int = 1, **settings: Any) -> Contestant:
    """A fake one; `NAME-sorted` is the other variant of NAME."""
    base = Base(SCRIPT, "fake", warm_every=warm_every, forgets=forgets, own_python=False)
    return Contestant(name, name.removesuffix("-sorted"), base, {"name": name, **settings}, name.endswith("-sorted"))


def case(name: str, rows: int = 3) -> SeededWorkload:
    """The first rows of a shape."""
    return SeededWorkload(name, lambda seed: generate(name, seed, 1000)[:rows])


def setup(folder: Path, **more: Any) -> BenchSetup:
    """For fake engines."""
    return BenchSetup(folder, "float32", 2, 600, folder, folder, timeout=600.0, **more)


def record(cases: list[SeededWorkload], path: Path | None = None) -> Record:
    """An empty one with the floors of its cases."""
    found = Record(dict(ABOUT), path=path)
    for each in cases:
        rows: list[Row] = each.rows(101)
        found.add_case(each.name, len(rows), floor_of(rows, SPEC, "float32"))
    return found

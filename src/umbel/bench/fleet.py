"""Keeps the engines' processes: one runs, the others are paused, or ended when the memory does not hold them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umbel.bench.engines import ADAPTERS, Base, Contestant, environment, python_for
from umbel.bench.process import EngineProcess
from umbel.cost.machine import available_memory

Say = Callable[[str], None]

RESERVE = 2 << 30  # bytes that stay free beside the engines
UNKNOWN = 3 << 30  # bytes beyond three times the weights that an engine is expected to take before it was seen


@dataclass(frozen=True, slots=True)
class BenchSetup:
    """The settings that every engine is loaded with.

    `model`, `dtype`, `threads`: the model, the dtype it computes in, and the threads.
    `longest`: tokens of the longest row.
    `folder`, `models`: the folder of this run (rows, answers, logs), and that of models in engines' own forms.
    `peers`, `peer_models`: interpreters and models of peers by name.
    `timeout`: seconds after which a load or a run is given up.
    """

    model: Path
    dtype: str
    threads: int
    longest: int
    folder: Path
    models: Path
    peers: Mapping[str, str] = field(default_factory=dict)
    peer_models: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 1200.0

    @property
    def weight_bytes(self) -> int:
        """Bytes of the model's files."""
        return sum(path.stat().st_size for path in self.model.glob("*.safetensors"))


@dataclass(slots=True)
class Loaded:
    """A process with a model in it, how long loading took, and how much memory it holds."""

    process: EngineProcess
    load_s: float
    facts: Mapping[str, Any]
    n_bytes: int = 0
    peak_bytes: int = 0


class Fleet:
    """Processes by name. `warm` is called with each new one, its engine, and whether there was one like it before."""

    def __init__(self, setup: BenchSetup, say: Say, warm: Callable[[Contestant, EngineProcess, bool], None]):
        self.setup, self._say, self._warm = setup, say, warm
        self.running: dict[str, Loaded] = {}
        self.facts: dict[str, dict[str, Any]] = {}  # by process: versions, seconds to load, peak memory
        self.crowded = False  # whether a process had to be ended to make room

    def use(self, engine: Contestant) -> EngineProcess:
        """The engine's process, running while all others are paused. Raises EngineError when it cannot be had."""
        self.rest()
        loaded = self.running.get(engine.process)
        if loaded is None or not loaded.process.alive:
            loaded = self._start(engine)
        loaded.process.resume()
        return loaded.process

    def rest(self) -> None:
        """Pause everything, and note what it holds."""
        for name, loaded in self.running.items():
            if not loaded.process.paused:
                self._note(name, loaded)
                loaded.process.pause()

    def drop(self, engine: Contestant) -> None:
        """End an engine's process, after a failure."""
        loaded = self.running.pop(engine.process, None)
        if loaded is not None:
            loaded.process.stop()

    def close(self) -> None:
        """End all processes."""
        for name, loaded in self.running.items():
            self._note(name, loaded)
            loaded.process.stop()
        self.running.clear()

    def _note(self, name: str, loaded: Loaded) -> None:
        now, peak = loaded.process.memory()
        loaded.n_bytes, loaded.peak_bytes = now or loaded.n_bytes, max(peak, loaded.peak_bytes)
        self.facts.setdefault(name, {})["peak_bytes"] = loaded.peak_bytes

    def _start(self, engine: Contestant) -> Loaded:
        self.running.pop(engine.process, None)
        needed = self._expected(engine.process)
        while available_memory() < needed + RESERVE and self.running:
            self._end_cheapest()
        process = launch(engine.name, engine.base, python_for(engine, self.setup.peers), self.setup)
        try:
            loaded = load(process, engine, self.setup)
            self._say(f"{engine.process}: loaded in {loaded.load_s:.1f} s")
            self._warm(engine, process, "load_s" in self.facts.get(engine.process, {}))
        except BaseException:
            process.stop()
            raise
        self.running[engine.process] = loaded
        facts = self.facts.setdefault(engine.process, {})
        facts.setdefault("load_s", []).append(loaded.load_s)
        facts |= loaded.facts
        return loaded

    def _expected(self, name: str) -> int:
        """Bytes that a process will take: what it took before, or a guess from the weights."""
        seen = int(self.facts.get(name, {}).get("peak_bytes", 0))
        return seen or 3 * self.setup.weight_bytes + UNKNOWN

    def _end_cheapest(self) -> None:
        """End the process that is quickest to start again."""
        name = min(self.running, key=lambda name: self.running[name].load_s)
        self._say(f"{name}: ended to make room in memory")
        self.crowded = True
        self._note(name, self.running[name])
        self.running.pop(name).process.stop()


def launch(name: str, base: Base, python: str, setup: BenchSetup) -> EngineProcess:
    """Start an adapter that has not loaded anything yet."""
    log = setup.folder / f"{name.partition(':')[0]}.log"
    return EngineProcess(name, [python, str(ADAPTERS / base.script)], environment(base, python, setup.threads), log)


def load(process: EngineProcess, engine: Contestant, setup: BenchSetup) -> Loaded:
    """Have the model converted to the engine's own form if need be (not counted), and loaded."""
    given = setup.peer_models.get(engine.key, str(setup.model))
    common = {"work": str(setup.models), "dtype": setup.dtype, "threads": setup.threads}
    model = process.ask({"do": "prepare", "model": given, **common}, setup.timeout)["model"]
    ask = {"do": "load", "model": model, "longest": -(-setup.longest // 128) * 128, **common}
    answer = process.ask({**ask, "settings": dict(engine.settings)}, setup.timeout)
    facts = {name: value for name, value in answer.items() if name != "took"}
    return Loaded(process, answer["took"], facts)


def run(process: EngineProcess, rows: Path, out: Path, *, is_sorted: bool, timeout: float) -> dict[str, Any]:
    """Have a file of rows run; the answers are in `out` then. Raises EngineError."""
    return process.ask({"do": "run", "rows": str(rows), "out": str(out), "sort": is_sorted}, timeout)

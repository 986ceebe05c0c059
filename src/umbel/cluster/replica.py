"""A replica: the model in a process of its own, which runs rows that come as bytes and says what it made of them."""

from __future__ import annotations

import json
import platform
import resource
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from umbel.cluster.frames import Kind, decode_rows, encode_answer
from umbel.config import EngineConfig
from umbel.engine.arithmetic import arithmetic_of
from umbel.engine.local import LocalEngine
from umbel.errors import UmbelError
from umbel.ir.report import Stats
from umbel.ir.spec import ModelSpec
from umbel.jobs.fingerprint import hash_model

Told = tuple[Kind, bytes]


class Replica:
    """A replica that an executor has ordered: "config" are its settings, "share" how many there are on this processor,
    "compared" says whether it has to tell what makes its answers comparable to those of others.

    `load` may take long, and `beat` and `totals` can be asked meanwhile, from another thread.
    """

    def __init__(self, order: str):
        asked = json.loads(order)
        self._config = EngineConfig(**asked["config"])
        self._share: int = asked["share"]
        self._compared: bool = asked["compared"]
        self._engine: LocalEngine | None = None

    def load(self) -> Told:
        """Load the model; returns READY. Raises UmbelError for what another try would meet as well."""
        engine = LocalEngine(self._config, share=self._share)
        told: dict[str, Any] = {"machine": asdict(engine.machine), "dtype": engine.model.config.dtype}
        if self._compared:
            told |= {"on": platform.node(), "made": made_of(self._config, engine.model.directory, engine.spec)}
        self._engine = engine
        return Kind.READY, json.dumps(told).encode()

    def run(self, data: bytes) -> Iterator[Told]:
        """Run rows; ANSWER for each as it finishes, then DONE with the totals."""
        assert self._engine is not None  # rows are sent to what is ready
        for output in self._engine.execute(decode_rows(data)):
            yield Kind.ANSWER, encode_answer(output)
        yield Kind.DONE, self.totals()

    def beat(self) -> bytes:
        """A mark of progress: steps while it runs, memory while it loads."""
        steps = 0 if self._engine is None else self._engine.stats().steps
        return f"{steps} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}".encode()

    def totals(self) -> bytes:
        """The totals so far, and when the first token was there (seconds on the system's monotonic clock)."""
        engine = self._engine
        stats, first = (Stats(), None) if engine is None else (engine.stats(), engine.first_token)
        return json.dumps({"stats": asdict(stats), "first_token": first}).encode()


def failed(error: UmbelError) -> bytes:
    """An error that ends the job, as the data of FAILED."""
    return json.dumps({"error": type(error).__name__, "message": str(error)}).encode()


def made_of(config: EngineConfig, directory: Path, spec: ModelSpec) -> dict[str, str]:
    """What the bits of answers depend on beside the rows: the model's files, this installation and this machine."""
    files = sha256(json.dumps(sorted(hash_model(directory).items())).encode()).hexdigest()[:16]
    return {"model": files, "umbel": version("umbel"), **arithmetic_of(config, spec)}

"""Loads a job's engine, and lets later plans learn how long that took."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from umbel.config import EngineConfig
from umbel.cost.startup import Loads
from umbel.errors import ModelError
from umbel.ir.load_count import LoadCount
from umbel.ir.spec import ModelSpec
from umbel.jobs.execution import Engine
from umbel.models.digest import hash_model, stamp_model

if TYPE_CHECKING:
    from umbel.profile.recorder import Recorder


@dataclass(slots=True)
class Loading:
    """The engine of a model, to be loaded when there are rows to run.

    `stamps` were taken of the model's files before anything was read of them, `files` are their digests. The time of
    hashing and loading counts, that of imports unless they were done meanwhile. `count`: how far loading is.
    """

    config: EngineConfig
    spec: ModelSpec
    directory: Path
    stamps: dict[str, tuple[int, int, int]]
    profile: Recorder | None = None
    count: LoadCount = field(default_factory=LoadCount)
    files: dict[str, str] = field(init=False)
    _hashing: float = field(init=False)
    _began: float | None = None

    def __post_init__(self) -> None:
        begin = time.perf_counter()
        self.files = hash_model(self.directory)
        self._hashing = time.perf_counter() - begin

    def arithmetic(self) -> dict[str, str]:
        """The settings that this machine decides (config.DECIDED_HERE); asked for before the engine."""
        self._begin()
        from umbel.engine.arithmetic import arithmetic_of

        return arithmetic_of(self.config, self.spec)

    def engine(self) -> Engine:
        """The loaded engine. Raises ModelError when files of the model have changed since they were hashed."""
        began = self._begin()
        engine = _load(self.config, self.profile, self.count)
        self._check_unchanged()
        Loads.of(self.directory, self.config).learn(self._hashing + time.perf_counter() - began)
        return engine

    def _begin(self) -> float:
        self._began = time.perf_counter() if self._began is None else self._began
        return self._began

    def _check_unchanged(self) -> None:
        """Raise ModelError when files of the model are not those that the job's fingerprint was made of."""
        now, stamps = stamp_model(self.directory), self.stamps
        changed = sorted(name for name in now.keys() | stamps.keys() if now.get(name) != stamps.get(name))
        if changed:
            files = ", ".join(changed[:5])
            raise ModelError(f"{self.directory}: {files} changed while the model was read: start the job again")


def _load(config: EngineConfig, profile: Recorder | None, count: LoadCount) -> Engine:
    if config.replicated:
        from umbel.cluster.replicas import Replicas

        return Replicas(config)
    from umbel.engine.local import LocalEngine
    from umbel.profile.attach import spans_for

    return LocalEngine(config, partial(spans_for, profile), count=count)

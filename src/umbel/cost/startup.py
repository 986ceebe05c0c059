"""What a job takes beside its steps: reading its rows, and loading the model as earlier jobs did."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from umbel.config import EngineConfig
from umbel.cost.json_cache import cache_folder, change_json, read_json
from umbel.cost.machine import this_name
from umbel.cost.roofline import Seconds

KEPT = 8  # loads; older ones may have been of another disk, or of files that were in memory
ROW_SECONDS = 6e-5  # to read, tokenise and plan a short row; measured by bench/job_overhead.py
TOKEN_SECONDS = 3e-7
IMPORT_SECONDS = 2.0  # until the first file of the model is opened
LOAD_RATE = 1e9  # bytes/s of weights, where no load was measured
UNSURE, ROUGH = 1.3, 4.0  # factors either side of what was measured, and of what was not


def reading(rows: int, tokens: int) -> Seconds:
    """Seconds to read, tokenise and plan a job of so many rows and prompt tokens."""
    expected = rows * ROW_SECONDS + tokens * TOKEN_SECONDS
    return Seconds(expected / ROUGH, expected, expected * ROUGH)


@dataclass(frozen=True, slots=True)
class Loads:
    """How long earlier jobs took to load a model here, in a file of the history; `path` None: nothing is kept."""

    path: Path | None

    @classmethod
    def of(cls, directory: Path | None, config: EngineConfig) -> Loads:
        """The loads of the model in `directory` (None: a shape, which is never loaded) on so many devices."""
        folder = cache_folder()
        if folder is None or directory is None:
            return cls(None)
        devices = [config.device, config.tensor_parallel_size, config.data_parallel_size]
        key = json.dumps([str(directory.resolve()), this_name(), config.dtype, config.linear, *devices])
        return cls(folder / f"loads-{sha256(key.encode()).hexdigest()[:20]}.json")

    def expect(self, n_bytes: int) -> Seconds:
        """Seconds to load weights of so many bytes: the median of earlier loads, else by an ordinary rate."""
        known = read_json(self.path, _seconds)
        if not known:
            expected = IMPORT_SECONDS + n_bytes / LOAD_RATE
            return Seconds(expected / ROUGH, expected, expected * ROUGH)
        return Seconds(min(known) / UNSURE, statistics.median(known), max(known) * UNSURE)

    def learn(self, seconds: float) -> None:
        """Add a load."""
        change_json(self.path, lambda: {"seconds": [*(read_json(self.path, _seconds) or []), seconds][-KEPT:]})


def _seconds(values: Mapping[str, Any]) -> list[float]:
    """The loads in a file. Raises ValueError for impossible ones."""
    found = [float(value) for value in values["seconds"]]
    if not all(0 < value < 1e6 for value in found):
        raise ValueError(f"loads of {found} seconds")
    return found

"""The results of a bench run, as one JSON file that is rewritten after every measurement."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from umbel.bench.floors import Floor
from umbel.cost.machine import processor_name
from umbel.errors import InputError

FORMAT = 1


@dataclass(slots=True)
class Record:
    """The results of one run. Times are UTC; rates in FLOP/s and bytes/s.

    `calibrations`: taken between the measurements; a measurement's `calibration` is the index of the one before it.
    `failures`: what could not be run, and why.
    `agreement`: how far tokens are equal (bench.agreement).
    `whole`: measurements of whole commands.
    """

    about: dict[str, Any]
    cases: list[dict[str, Any]] = field(default_factory=list)
    engines: list[dict[str, Any]] = field(default_factory=list)
    calibrations: list[dict[str, Any]] = field(default_factory=list)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    agreement: dict[str, Any] = field(default_factory=dict)
    whole: list[dict[str, Any]] = field(default_factory=list)
    path: Path | None = None

    def add_case(self, name: str, n_rows: int, floor: Floor) -> None:
        """Note a workload."""
        self.cases.append({"name": name, "rows": n_rows, **asdict(floor)})

    def save(self) -> None:
        """Write the file, replacing the one before atomically."""
        if self.path is not None:
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")
            part.replace(self.path)

    def as_dict(self) -> dict[str, Any]:
        """The record for JSON."""
        found = asdict(self)
        found.pop("path")
        return found

    @property
    def best(self) -> tuple[float, float]:
        """The best rates of all calibrations (FLOP/s and bytes/s), at which the floors are taken."""
        if not self.calibrations:
            return (float("nan"), float("nan"))
        return max(c["matmul"] for c in self.calibrations), max(c["read"] for c in self.calibrations)


def read_record(path: Path) -> Record:
    """A record from its file. Raises InputError for other files."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["about"]["format"] != FORMAT:
            raise ValueError(f"its format is {found['about']['format']}, not {FORMAT}")
        return Record(**found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not the result of umbel bench ({error})") from None


def about(command: Sequence[str], model: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Date, machine, versions, commit and settings of a run that begins now."""
    return {
        "format": FORMAT,
        "date": now(),
        "command": list(command),
        "commit": commit(Path(__file__).parent),
        "versions": {"umbel": version("umbel"), "python": platform.python_version()},
        "machine": {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": f"{platform.system()} {platform.release()}",
        },
        "model": dict(model),
        "settings": dict(settings),
    }


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.fromtimestamp(time.time(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def commit(folder: Path) -> str | None:
    """The git commit of a folder, with + when tracked files were changed since; None outside git."""
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None

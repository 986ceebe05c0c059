"""What earlier runs measured, on disk: seconds of steps by machine and shape, lengths of answers by model.

A small JSON file each, in the folder that cost.json_cache names. Plans get better with it and answers never depend on
it, so any failure here ends in a plan without history.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from umbel.cost.calibration import Calibration, Floats
from umbel.cost.draft_law import DraftLaw
from umbel.cost.drafts import Offers
from umbel.cost.json_cache import cache_folder, change_json, read_json
from umbel.cost.known import Known
from umbel.cost.lengths import LengthCurve
from umbel.cost.load import Load
from umbel.cost.machine import Machine, machine_name
from umbel.cost.meter import Meter
from umbel.ir.spec import ModelSpec

FORMAT = 1
LEAST_STEPS, LEAST_SECONDS = 3, 0.02  # less of a run teaches nothing about seconds
MOST_TEMPLATES = 256  # the last ones seen are kept
MOST_DRAFTERS = 16
MOST_ANSWERS = 4096.0  # of a template; beyond that, earlier ones fade as later ones come
_NOT_SHAPE = ("adapters", "dtype", "bos_token_id", "eos_token_ids", "max_positions", "notes")


@dataclass(frozen=True, slots=True)
class History:
    """The history of one model on one machine; `steps`, `lengths`, `drafts` and `laws` are its files, None when nothing
    is kept."""

    steps: Path | None
    lengths: Path | None
    drafts: Path | None = None
    laws: Path | None = None

    @classmethod
    def of(
        cls, spec: ModelSpec, directory: Path | None, dtype: str, machine: Machine, threads: int | None = None
    ) -> History:
        """Seconds belong to a shape, dtype, machine and number of threads; lengths to the model in `directory` (None: a
        bare shape)."""
        folder = cache_folder()
        if folder is None:
            return cls(None, None)
        where = {"machine": machine_name(machine), "threads": threads or default_threads(), "dtype": dtype}
        shape = {name: value for name, value in asdict(spec).items() if name not in _NOT_SHAPE}
        if spec.adapters:
            shape["adapters"] = [adapter.weights for adapter in spec.adapters]
        steps = folder / f"steps-{_digest(where | shape)}.json"
        if directory is None:
            return cls(steps, None)
        of_model = f"{_digest({'model': str(directory.resolve())})}.json"
        return cls(steps, *(folder / f"{kind}-{of_model}" for kind in ("lengths", "drafts", "laws")))

    def load(self) -> Known:
        """All that is known: empty where there is no history, or (with a warning) where it cannot be read."""
        lengths, offers = read_json(self.lengths, _curves) or {}, read_json(self.drafts, _offers) or {}
        laws = read_json(self.laws, _laws) or {}
        return Known(lengths, read_json(self.steps, Calibration.of_dict), offers, laws)

    def without_lengths(self) -> History:
        """The history of steps alone."""
        return replace(self, lengths=None, drafts=None, laws=None)

    def learn(self, meter: Meter, lengths: Mapping[str, LengthCurve], prior: Floats) -> None:
        """Add the steps of a run and the lengths of its answers by template, whether it finished or not."""
        self.learn_steps(meter.load(), meter.seconds(), prior)
        self.learn_lengths(lengths)

    def learn_steps(self, load: Load, seconds: Floats, prior: Floats, *, restart: bool = False) -> None:
        """Add measured steps (`Calibration.learn`).

        `prior`: where a first fit starts.
        `restart`: start again from the prior, and accept a run that would otherwise be too short to learn from.
        """

        def change() -> dict[str, Any]:
            known = None if restart else read_json(self.steps, Calibration.of_dict)
            return (known or Calibration.start(prior)).learn(load, seconds).as_dict()

        if restart or (load.steps.sum() >= LEAST_STEPS and (load.steps * seconds).sum() >= LEAST_SECONDS):
            change_json(self.steps, change)

    def learn_lengths(self, seen: Mapping[str, LengthCurve]) -> None:
        """Add the lengths of finished answers, by template."""
        if seen:
            change_json(self.lengths, lambda: _plain(_joined(read_json(self.lengths, _curves) or {}, seen)))

    def learn_offers(self, seen: Mapping[str, Offers]) -> None:
        """Add what was proposed, by template; older runs fade."""

        def change() -> dict[str, Any]:
            old = read_json(self.drafts, _offers) or {}
            both = {name: one.scaled(MOST_ANSWERS) for name, one in old.items() if name not in seen}
            both |= {name: old.get(name, Offers.none()).scaled(MOST_ANSWERS).joined(one) for name, one in seen.items()}
            return {"templates": {name: one.to_json() for name, one in list(both.items())[-MOST_TEMPLATES:]}}

        if seen:
            change_json(self.drafts, change)

    def learn_laws(self, drafter: str, seen: Mapping[str, DraftLaw]) -> None:
        """Add what came true of a drafter's tokens, by template; older runs fade."""

        def change() -> dict[str, Any]:
            every = read_json(self.laws, _laws) or {}
            old = every.pop(drafter, {})
            both = {name: one for name, one in old.items() if name not in seen}
            both |= {name: _faded(old.get(name)).joined(one) for name, one in seen.items()}
            every[drafter] = dict(list(both.items())[-MOST_TEMPLATES:])
            kept = list(every.items())[-MOST_DRAFTERS:]
            return {"drafters": {name: {of: law.to_json() for of, law in laws.items()} for name, laws in kept}}

        if seen:
            change_json(self.laws, change)


def default_threads() -> int:
    """The threads that torch would use when no number is given, as far as that is known without importing it."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _digest(parts: Mapping[str, Any]) -> str:
    return sha256(json.dumps([FORMAT, parts], sort_keys=True).encode()).hexdigest()[:20]


def _curves(values: Mapping[str, Any]) -> dict[str, LengthCurve]:
    """Length curves from JSON. Raises on anything else."""
    return {str(name): LengthCurve.of_json(one) for name, one in values["templates"].items()}


def _offers(values: Mapping[str, Any]) -> dict[str, Offers]:
    """Offers from JSON. Raises on anything else."""
    return {str(name): Offers.of_json(one) for name, one in values["templates"].items()}


def _laws(values: Mapping[str, Any]) -> dict[str, dict[str, DraftLaw]]:
    """Laws from JSON. Raises on anything else."""
    return {
        str(drafter): {str(name): DraftLaw.of_json(one) for name, one in laws.items()}
        for drafter, laws in values["drafters"].items()
    }


def _faded(law: DraftLaw | None) -> DraftLaw:
    """What weighs no more than MOST_ANSWERS samples."""
    return DraftLaw.none() if law is None else law.scaled(min(1.0, MOST_ANSWERS / max(law.asked, 1.0)))


def _plain(curves: Mapping[str, LengthCurve]) -> dict[str, Any]:
    return {"templates": {name: curve.to_json() for name, curve in curves.items()}}


def _joined(old: Mapping[str, LengthCurve], new: Mapping[str, LengthCurve]) -> dict[str, LengthCurve]:
    """The curves of both, those seen last at the end; the oldest are left out when there are too many."""
    kept = {name: curve for name, curve in old.items() if name not in new}
    both = kept | {name: _sum(old[name], curve) if name in old else curve for name, curve in new.items()}
    return dict(list(both.items())[-MOST_TEMPLATES:])


def _sum(old: LengthCurve, new: LengthCurve) -> LengthCurve:
    """The answers of both; the old ones fade so that they never weigh more than `MOST_ANSWERS` less the new ones."""
    return old.scaled(max(MOST_ANSWERS - new.answers, 0.0)).joined(new)

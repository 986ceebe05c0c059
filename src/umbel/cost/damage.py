"""What `umbel lab` measured of techniques that may change answers: how answers suffer, and what is saved, by model.

One file for each model in the folder that cost.json_cache names, by a digest of its files, so that plans can choose.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from umbel.cost.json_cache import cache_folder, change_json, read_json

FORMAT = 1
SHORT: Mapping[str, str] = {"kv_cache_dtype": "kv", "technique": ""}  # what people call options


@dataclass(frozen=True, slots=True)
class TaskDamage:
    """What became of one task's answers.

    `rows`: answers of both. `prompt_tokens`, `output_tokens`: the means of dense's.
    `labelled`: rows whose right answer is known; `dense_right`, `right`: those that dense and the technique answer
        rightly; `lost`: those that dense has right and the technique wrong.
    `parted`: answers that differ in a token; `parting`: the place of the first such, the median over these answers.
    `drift`, `most_drift`: how far the log-probabilities of dense's own tokens move, on average and at most, up to where
        an answer parts.
    `dense_seconds`, `seconds`: of all rows together.
    """

    task: str
    rows: int
    prompt_tokens: float
    output_tokens: float
    labelled: int
    dense_right: int
    right: int
    lost: int
    parted: int
    parting: float | None
    drift: float
    most_drift: float
    dense_seconds: float
    seconds: float

    @property
    def share_lost(self) -> float:
        """The share of dense's right answers that are lost."""
        return self.lost / self.dense_right if self.dense_right else 0.0


@dataclass(frozen=True, slots=True)
class MeasuredTechnique:
    """A technique, by the `option` of EngineConfig and its `value`, as it was measured in a `dtype` on a `machine`.

    `kv_bytes`: of a token's keys and values; `weight_bytes`: of the weights that products read; both beside dense's.
    `keys_share`: the share of keys that was read; `flops_share`: of the FLOPs of prompts and answers.
    `kept_mass`, `least_mass`: the share of dense's softmax that is on keys that are read, of rows that do not read all:
        the mean over rows, layers and heads, and the least of a row; None where nothing is left unread.
    """

    option: str
    value: str
    dtype: str
    machine: str
    kv_bytes: int
    dense_kv_bytes: int
    weight_bytes: int
    dense_weight_bytes: int
    keys_share: float
    flops_share: float
    kept_mass: float | None
    least_mass: float | None
    tasks: tuple[TaskDamage, ...]

    @property
    def name(self) -> str:
        """What people call it: linear int8, pages:budget=0.25."""
        return f"{SHORT.get(self.option, self.option)} {self.value}".strip()

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells it from others."""
        return self.option, self.value, self.dtype, self.machine

    @property
    def seconds_share(self) -> float:
        """Its seconds as a share of dense's, all tasks together."""
        dense = sum(task.dense_seconds for task in self.tasks)
        return sum(task.seconds for task in self.tasks) / dense if dense else 1.0

    @property
    def kv_share(self) -> float:
        """Its bytes of a token's keys and values as a share of dense's, which may have none."""
        return self.kv_bytes / self.dense_kv_bytes if self.dense_kv_bytes else 1.0

    @property
    def weight_share(self) -> float:
        """Its bytes of weights as a share of dense's."""
        return self.weight_bytes / self.dense_weight_bytes if self.dense_weight_bytes else 1.0

    @property
    def share_lost(self) -> float:
        """The share of dense's right answers that are lost, of the task that loses most."""
        return max((task.share_lost for task in self.tasks), default=0.0)

    def with_tasks(self, earlier: Sequence[TaskDamage]) -> MeasuredTechnique:
        """The same with tasks that were measured earlier, and not again."""
        mine = {task.task for task in self.tasks}
        return replace(self, tasks=(*(task for task in earlier if task.task not in mine), *self.tasks))

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> MeasuredTechnique:
        """What `asdict` wrote. Raises on anything else."""
        return cls(**{**values, "tasks": tuple(TaskDamage(**task) for task in values["tasks"])})


@dataclass(frozen=True, slots=True)
class DamageFile:
    """What was measured of one model; `path` None: nothing is kept."""

    path: Path | None

    @classmethod
    def of(cls, files: Mapping[str, str]) -> DamageFile:
        """The file of a model, by the digests of the model's own files."""
        folder = cache_folder()
        key = sha256(json.dumps([FORMAT, dict(files)], sort_keys=True).encode()).hexdigest()[:20]
        return cls(None if folder is None else folder / f"damage-{key}.json")

    def load(self) -> tuple[MeasuredTechnique, ...]:
        """All that was measured: nothing where there is no file, or (with a warning) where it cannot be read."""
        return read_json(self.path, _measured) or ()

    def learn(self, new: Sequence[MeasuredTechnique]) -> None:
        """Add measurements: of a task that was measured before the last one counts."""

        def change() -> dict[str, Any]:
            known = {one.key: one for one in self.load()}
            for one in new:
                known[one.key] = one.with_tasks(known[one.key].tasks) if one.key in known else one
            return {"techniques": [asdict(one) for one in known.values()]}

        change_json(self.path, change)

    def forget(self) -> None:
        """Begin again, as if nothing had been measured."""
        change_json(self.path, lambda: {"techniques": []})


def _measured(values: Mapping[str, Any]) -> tuple[MeasuredTechnique, ...]:
    return tuple(MeasuredTechnique.of_json(one) for one in values["techniques"])

"""A session of the lab: dense answers first, then those of each technique, and what came of it as a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any

from umbel.cost.damage import DamageFile, MeasuredTechnique
from umbel.errors import UmbelError, UsageError
from umbel.lab.answers import Answered, AnsweringModel
from umbel.lab.compare import task_damage
from umbel.lab.kept_mass import MassMeter, measure_mass
from umbel.lab.offers import Offer
from umbel.lab.tasks import LabTask, find_tasks
from umbel.models.digest import hash_model
from umbel.models.families import resolve_model

MASS_ROWS = 4  # of each task, of which the mass that is kept is measured
Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class LabAsk:
    """What a session measures: a `model`, `offers`, the names of `tasks` with so many `rows` each, and how often each
    is timed (`rounds`); `settings` are more keywords of the `LLM`."""

    model: str
    offers: Sequence[Offer]
    tasks: Sequence[str]
    rows: int
    rounds: int
    seed: int
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LabRecord:
    """What a session found: `about` it (model, machine, dtype, rows, rounds, date, by name), the techniques that were
    measured, and those that could not be, each with the reason."""

    about: Mapping[str, Any]
    techniques: tuple[MeasuredTechnique, ...]
    failures: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON has it."""
        found = {"about": dict(self.about), "techniques": [asdict(one) for one in self.techniques]}
        return {**found, "failures": dict(self.failures)}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> LabRecord:
        """The record that `as_dict` wrote. Raises on anything else."""
        techniques = tuple(MeasuredTechnique.of_json(one) for one in values["techniques"])
        return cls(dict(values["about"]), techniques, dict(values["failures"]))


def damage_file(model: str) -> DamageFile:
    """What is kept of the measurements of a model. Raises UsageError, ModelError."""
    return DamageFile.of(hash_model(resolve_model(model)))


def kept_record(model: str) -> LabRecord:
    """All that sessions have found of a model, as one record. Raises UsageError where there is nothing."""
    found = damage_file(model).load()
    if not found:
        raise UsageError(f"nothing was measured of {model} yet: umbel lab -m {model}")
    named = {name: ", ".join(dict.fromkeys(getattr(one, name) for one in found)) for name in ("machine", "dtype")}
    return LabRecord({"model": model, **named, "date": _now()}, found, {})


def run_session(ask: LabAsk, say: Say) -> LabRecord:
    """Measure; what was found of each technique is kept as soon as it is there. Raises UmbelError where dense cannot
    be measured; a technique that cannot is a failure of the record."""
    kept, dense = damage_file(ask.model), AnsweringModel(ask.model, **ask.settings)
    try:
        tasks = find_tasks(ask.tasks, ask.rows, ask.seed, dense.count)
        bench = _Bench(ask, tasks, _answers(dense, tasks, ask.rounds, "dense", say), dense, say)
        about = _about(ask, dense)
    finally:
        dense.close()
    found, failures = list[MeasuredTechnique](), dict[str, str]()
    for offer in ask.offers:
        try:
            found.append(bench.measure(offer))
        except UmbelError as error:
            failures[offer.name] = str(error)
            say(f"{offer.name}: {error}")
            continue
        kept.learn(found[-1:])
    return LabRecord(about, tuple(found), failures)


def _about(ask: LabAsk, dense: AnsweringModel) -> dict[str, Any]:
    """What a session is of."""
    named = {"model": ask.model, "machine": dense.machine, "dtype": dense.dtype, "date": _now()}
    return {**named, "rows": ask.rows, "rounds": ask.rounds, "seed": ask.seed}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _answers(model: AnsweringModel, tasks: Sequence[LabTask], rounds: int, name: str, say: Say) -> list[Answered]:
    model.answer(_first(tasks[0], 1), 1)  # warms up
    found = []
    for task in tasks:
        found.append(model.answer(task, rounds))
        say(f"{name}: {task.name}, {len(task.prompts)} rows in {found[-1].seconds:.2f} s")
    return found


class _Bench:
    """Dense's answers to the tasks, and its bytes, beside which techniques are measured."""

    def __init__(
        self, ask: LabAsk, tasks: Sequence[LabTask], answers: Sequence[Answered], dense: AnsweringModel, say: Say
    ):
        self.ask, self.tasks, self.answers, self.say = ask, tasks, answers, say
        self.kv_bytes, self.weight_bytes = dense.kv_bytes, dense.weight_bytes

    def measure(self, offer: Offer) -> MeasuredTechnique:
        """What a technique does, and saves. Raises UmbelError where it cannot be used."""
        model = AnsweringModel(self.ask.model, **{**self.ask.settings, **offer.options()})
        try:
            found = _answers(model, self.tasks, self.ask.rounds, offer.name, self.say)
            stats, flops = model.stats(), model.flops_share()
            selects = offer.row.family == "select"
            masses = [measure_mass(model, _first(task)) for task in self.tasks] if selects else []
            return MeasuredTechnique(
                option=offer.row.option[0],
                value=offer.value,
                dtype=model.dtype,
                machine=model.machine,
                kv_bytes=model.kv_bytes,
                dense_kv_bytes=self.kv_bytes,
                weight_bytes=model.weight_bytes,
                dense_weight_bytes=self.weight_bytes,
                keys_share=stats.keys_read / stats.keys_whole if stats.keys_whole else 1.0,
                flops_share=flops,
                kept_mass=_kept(masses),
                least_mass=min((mass.least for mass in masses), default=None),
                tasks=tuple(task_damage(*each) for each in zip(self.tasks, self.answers, found, strict=True)),
            )
        finally:
            model.close()


def _first(task: LabTask, rows: int = MASS_ROWS) -> LabTask:
    """The first rows of a task."""
    each = {name: getattr(task, name)[:rows] for name in ("prompts", "most", "judges", "documents")}
    return replace(task, **each)


def _kept(masses: Sequence[MassMeter]) -> float | None:
    count = sum(mass.count for mass in masses)
    return sum(mass.total for mass in masses) / count if count else None

"""Takes for a job the technique that may change answers and was measured to be the fastest within a limit of damage."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from umbel.batch.job_options import JobOptions
from umbel.config import EngineConfig
from umbel.errors import UsageError
from umbel.ir.plan import Plan
from umbel.plan.passes.techniques import BY_NAME

if TYPE_CHECKING:
    from umbel.batch.planning import Planning, Target
    from umbel.plan.choice import LossyChoice


def damage_limit(job: JobOptions) -> float | None:
    """The largest share of right answers that a job may lose; None where nothing is to be chosen by that. Raises
    UsageError."""
    if job.budget.max_damage is None:
        return None
    text = job.budget.max_damage.strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UsageError(f"--max-damage {text}: must be a share of right answers, such as 1% or 0.01")
    if not job.config.allow_lossy:
        raise UsageError(f"--max-damage {text} lets answers change: --allow-lossy says that they may")
    if job.config.lossy:
        raise UsageError(f"--max-damage {text} chooses by itself: leave {job.config.lossy[0]} out")
    return share


def plan_within(job: JobOptions, planning: Planning, target: Target) -> tuple[Plan, Target, LossyChoice | None]:
    """The plan of a job with what was chosen for it, what that plans for, and the choice; None where nothing is to be
    chosen. Raises UmbelError."""
    from umbel.batch.planning import target_at

    limit, plan = damage_limit(job), planning.plan(target)
    if limit is None:
        return plan, target, None
    choice = choose_for(limit, plan, target, planning)
    target = target_at(taking(job.config, choice), target.name, target.machines)
    plan = planning.plan(target)
    others = (one for one in plan.refusals if not one.why.startswith(BY_NAME))
    decided = (choice.decision, *plan.decisions)
    return replace(plan, decisions=decided, refusals=(*choice.refusals, *others)), target, choice


def choose_for(limit: float, dense: Plan, target: Target, planning: Planning) -> LossyChoice:
    """Choose for a workload whose plan by `dense` is there, among what the lab measured of the model; of a
    shape nothing is known."""
    import numpy as np

    from umbel.cost.damage import DamageFile
    from umbel.cost.machine import machine_name
    from umbel.models.digest import hash_model
    from umbel.plan.choice import DamageAim, choose_lossy, lossy_rows

    lengths, machine = np.diff(planning.workload.offsets), target.machine
    aim = DamageAim(
        limit=limit,
        prompt=float(lengths.mean()),
        longest=int(lengths.max()),
        seconds=dense.estimates.seconds[1],
        model=target.config.model,
        dtype=machine.choose_dtype(target.config.dtype, planning.spec.dtype),
        machine=machine_name(machine),
    )
    known = () if planning.directory is None else DamageFile.of(hash_model(planning.directory)).load()
    drafted = target.config.speculate.startswith("model:")  # what chooses for "prompt"
    others = ("reuse",) if drafted else ("reuse", "prompt")  # "reuse": rows would have to be read in another way
    rows = [row for row in lossy_rows() if row.family not in others]
    return choose_lossy(known, rows, aim)


def taking(config: EngineConfig, choice: LossyChoice) -> EngineConfig:
    """The settings with what was chosen."""
    if choice.chosen is None:
        return config
    option, value = choice.chosen.option, choice.chosen.value
    several = isinstance(getattr(config, option), tuple)
    return replace(config, **{option: (value,) if several else value})

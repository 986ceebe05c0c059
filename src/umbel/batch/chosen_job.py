"""A job with the technique that is chosen for it by its damage, before it runs: its input is read for that."""

from __future__ import annotations

from dataclasses import replace

from umbel.batch.damage_limit import damage_limit
from umbel.batch.job_options import JobOptions
from umbel.errors import UsageError


def chosen_job(job: JobOptions) -> tuple[JobOptions, str]:
    """A job that takes what was chosen for it, and why, in a line; as it is where nothing is to be chosen. Its input is
    read for that, and again when it runs. Raises UmbelError."""
    if damage_limit(job) is None:
        return job, ""
    from umbel.batch.planned import PlanAim, plan_job
    from umbel.models.families import read_spec, resolve_model

    if "-" in job.sources:
        raise UsageError("--max-damage reads the input before it runs: give a file instead of -")
    directory = resolve_model(job.model)
    spec = read_spec(directory, job.config.model_impl, job.config.generation_config)
    choice = plan_job(job, PlanAim(spec, directory), words=False).choice
    assert choice is not None  # as there is a limit
    said = f"lossy: {choice.decision.value}: {choice.decision.reason}"
    budget = replace(job.budget, max_damage=None)
    if choice.chosen is None:
        return replace(job, budget=budget), said
    option, several = choice.chosen.option, isinstance(getattr(job.config, choice.chosen.option), tuple)
    value = [choice.chosen.value] if several else choice.chosen.value
    return replace(job, budget=budget, engine=replace(job.engine, **{option: value})), said

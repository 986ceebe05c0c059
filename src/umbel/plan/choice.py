"""Chooses a technique that may change answers by what was measured of it: the fastest within a limit of damage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log

import numpy as np

from umbel import registry
from umbel.cost.damage import MeasuredTechnique, TaskDamage
from umbel.ir.plan import Decision, Refusal
from umbel.technique import Technique

LONGER = 1.5  # how many times as long as those that were measured prompts may be
NEAR = 1.5  # tasks whose prompts differ by no more than this factor are taken together


@dataclass(frozen=True, slots=True)
class DamageAim:
    """What a technique is chosen for: at most a share of `limit` of right answers lost, in a job whose prompts have
    `prompt` tokens on average and `longest` at most, and take `seconds` by dense; `model`, `dtype` and `machine` by
    name."""

    limit: float
    prompt: float
    longest: int
    seconds: float
    model: str
    dtype: str
    machine: str


@dataclass(frozen=True, slots=True)
class LossyChoice:
    """What was chosen, None where nothing was, the decision and what was refused, with the reasons."""

    chosen: MeasuredTechnique | None
    decision: Decision
    refusals: tuple[Refusal, ...]


def lossy_rows() -> tuple[Technique, ...]:
    """The rows whose techniques may change answers, and that an option takes."""
    return tuple(row for row in registry.rows() if not row.exact and row.option[0])


def choose_lossy(known: Sequence[MeasuredTechnique], rows: Sequence[Technique], aim: DamageAim) -> LossyChoice:
    """Choose among what is known of a model; `rows` are the techniques that there are."""
    mine = [one for one in known if any(row.asked_by(one.option, one.value) for row in rows)]
    faults = {one.key: fault for one in mine if (fault := why_not(one, aim))}
    fitting = sorted((one for one in mine if one.key not in faults), key=lambda one: seconds_share(one, aim.prompt))
    best = fitting[0] if fitting else None
    missing = [row for row in rows if not any(row.asked_by(one.option, one.value) for one in mine)]
    refusals = [
        *(_slower(_named(one, rows), one, fitting[0], aim) for one in fitting[1:]),
        *(Refusal(_named(one, rows), None, faults[one.key]) for one in mine if one.key in faults),
        *(Refusal(f"{row.family}: {row.name}", None, _not_measured(row, aim)) for row in missing),
    ]
    return LossyChoice(best, _decision(best, aim, len(mine), len(rows)), tuple(refusals))


def why_not(one: MeasuredTechnique, aim: DamageAim) -> str:
    """Why a measured technique is not for a job, '' where it is."""
    return next(_faults(one, aim), "")


def _faults(one: MeasuredTechnique, aim: DamageAim) -> Iterator[str]:
    if one.machine != aim.machine:
        yield f"measured on {one.machine}, not on {aim.machine}"
    if one.dtype != aim.dtype:
        yield f"measured in {one.dtype}, and this job computes in {aim.dtype}"
    worst = max(one.tasks, key=lambda task: task.share_lost, default=None)
    if worst is not None and worst.share_lost > aim.limit:
        yield f"loses {_lost(worst)}, more than {aim.limit:.2%}"
    told = [task for task in one.tasks if task.dense_right * aim.limit >= 1]
    if not told:
        most = max((task.dense_right for task in one.tasks), default=0)
        least = ceil(1 / aim.limit) if aim.limit else 0
        yield f"measured on {most} right answers a task at most, which cannot tell {aim.limit:.2%}: {least} can"
    measured = max((task.prompt_tokens for task in told), default=0.0)
    if aim.longest > LONGER * measured:
        yield f"measured on prompts of {measured:,.0f} tokens at most, and this job has one of {aim.longest:,}"
    share = seconds_share(one, aim.prompt)
    if share >= 1:
        yield f"saves nothing: {share:.2f} times dense's seconds, as measured around {aim.prompt:,.0f} tokens a prompt"


def seconds_share(one: MeasuredTechnique, prompt: float) -> float:
    """Seconds as a share of dense's for prompts of so many tokens: between those of the nearest lengths that were
    measured."""
    groups: list[list[TaskDamage]] = []
    for task in sorted(one.tasks, key=lambda task: task.prompt_tokens):
        if groups and task.prompt_tokens <= NEAR * groups[-1][0].prompt_tokens:
            groups[-1].append(task)
        else:
            groups.append([task])
    if not groups:
        return 1.0
    lengths = [log(max(sum(task.prompt_tokens for task in group) / len(group), 1.0)) for group in groups]
    shares = [sum(t.seconds for t in group) / (sum(t.dense_seconds for t in group) or 1.0) for group in groups]
    return float(np.interp(log(max(prompt, 1.0)), lengths, shares))


def _decision(best: MeasuredTechnique | None, aim: DamageAim, measured: int, rows: int) -> Decision:
    facts = {"limit": aim.limit, "measured": measured, "techniques": rows}
    if best is None:
        why = f"no technique that may change answers is known to lose at most {aim.limit:.2%} and to save time: "
        why += f"{measured} measured of {aim.model}" if measured else f"none was measured: umbel lab -m {aim.model}"
        return Decision("lossy", "none", _plain(why), facts=facts)
    share = seconds_share(best, aim.prompt)
    worst = max(best.tasks, key=lambda task: task.share_lost)
    why = f"the fastest of {measured} measured that loses at most {aim.limit:.2%}: at worst {_lost(worst)}; "
    why += f"{share:.2f} times dense's seconds, as measured around {aim.prompt:,.0f} tokens a prompt"
    return Decision("lossy", best.name, _plain(why), facts={**facts, "lost": worst.share_lost, "seconds_share": share})


def _plain(text: str) -> str:
    """A text as the reason of a decision, which has the names of facts in braces: files may be called anything."""
    return text.replace("{", "{{").replace("}", "}}")


def _named(one: MeasuredTechnique, rows: Sequence[Technique]) -> str:
    """A technique under the name of its family, as refusals have it."""
    family = next(row.family for row in rows if row.asked_by(one.option, one.value))
    return f"{family}: {one.value}"


def _slower(name: str, one: MeasuredTechnique, best: MeasuredTechnique, aim: DamageAim) -> Refusal:
    more = seconds_share(one, aim.prompt) - seconds_share(best, aim.prompt)
    return Refusal(name, more * aim.seconds, f"within {aim.limit:.2%}, and slower than {best.name}")


def _not_measured(row: Technique, aim: DamageAim) -> str:
    return f"not measured with this model: umbel lab -m {aim.model} --techniques {row.family}={row.name}"


def _lost(task: TaskDamage) -> str:
    return f"{task.share_lost:.2%} of {task.task} ({task.lost} of {task.dense_right} right answers)"

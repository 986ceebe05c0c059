"""Compares a technique's answers to a task with dense's: where they part, how far probabilities move, what is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from umbel.cost.damage import TaskDamage
from umbel.lab.answers import Answered, LabAnswer
from umbel.lab.tasks import LabTask


def parting(dense: Sequence[int], other: Sequence[int]) -> int | None:
    """The first place at which two answers differ, None where they do not."""
    both = enumerate(zip(dense, other, strict=False))
    differs = next((place for place, (a, b) in both if a != b), min(len(dense), len(other)))
    return None if len(dense) == len(other) == differs else differs


def drifts(dense: LabAnswer, other: LabAnswer) -> Iterator[float]:
    """How far the log-probability of each of dense's tokens moves, up to where the answers part, that token included:
    what stands before it is the same in both. One that is not likely any more counts as the least likely that is."""
    place = parting(dense.ids, other.ids)
    end = len(dense.ids) if place is None else place + 1
    for token, before, after in zip(dense.ids[:end], dense.logprobs, other.logprobs, strict=False):
        yield abs(before[token] - after.get(token, min(after.values())))


def task_damage(task: LabTask, dense: Answered, other: Answered) -> TaskDamage:
    """What a technique did to the answers of a task."""
    pairs = list(zip(dense.answers, other.answers, strict=True))
    places = [place for a, b in pairs if (place := parting(a.ids, b.ids)) is not None]
    moved = [moved for a, b in pairs for moved in drifts(a, b)]
    judged = [
        (judge(a.text), judge(b.text)) for judge, (a, b) in zip(task.judges, pairs, strict=True) if judge is not None
    ]
    return TaskDamage(
        task=task.name,
        rows=len(pairs),
        prompt_tokens=_mean([a.prompt_tokens for a, _ in pairs]),
        output_tokens=_mean([len(a.ids) for a, _ in pairs]),
        labelled=len(judged),
        dense_right=sum(a for a, _ in judged),
        right=sum(b for _, b in judged),
        lost=sum(a and not b for a, b in judged),
        parted=len(places),
        parting=median(places) if places else None,
        drift=_mean(moved),
        most_drift=max(moved, default=0.0),
        dense_seconds=dense.seconds,
        seconds=other.seconds,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

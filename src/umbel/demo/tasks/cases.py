"""Held-out questions of the demo models' tasks, each with the answer, and whether a guess is right."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from types import ModuleType

from umbel.demo.tasks import addition, copying, extract, labels, lookup, passages, stories
from umbel.demo.tasks.base import TaskItem

FAMILIES: Mapping[str, ModuleType] = {
    "copy": copying,
    "add": addition,
    "topic": labels,
    "sentiment": labels,
    "intent": labels,
    "extract": extract,
    "lookup": lookup,
    "passage": passages,
    "story": stories,
}
LINE_TOKENS = 8  # of a lookup, before they are counted


def held_out_item(rng: random.Random, task: str, size: int) -> TaskItem:
    """One item that training did not see; `size` is the context length in tokens for lookups and passages."""
    family = FAMILIES[task]
    found: TaskItem = labels.item(rng, "eval", kind=task) if family is labels else family.item(rng, "eval", size)
    return found


def lookup_of_size(rng: random.Random, size: int, count: Callable[[str], int], depth: float | None = None) -> TaskItem:
    """A lookup whose prompt has about `size` tokens, as `count` counts them: the form's tokens per line are measured,
    then used. What is asked for stands at a `depth` of its context (a share; None: anywhere)."""
    seed, lines = rng.random(), max(2, size // LINE_TOKENS)
    for _ in range(3):
        item = lookup.thread(random.Random(seed), "eval", size, 1, lines=lines, depth=depth)[1][0]
        lines = max(2, round(lines * size / count(item.prompt)))
    return item


def is_right(task: str, guess: str, answer: str) -> bool:
    """Whether a guess is the answer; of a story, whether its first word (the object it is about) is."""
    if task == "story":
        return guess.split(" ", maxsplit=1)[0].rstrip(".") == answer.split(" ", maxsplit=1)[0].rstrip(".")
    return guess == answer

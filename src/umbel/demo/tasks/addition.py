"""Addition of numbers of one to three digits."""

from __future__ import annotations

import random
from typing import Any

from umbel.demo.tasks.base import TaskItem, TrainingDoc, draw, pairs_doc

WORDING = (
    "What is {} + {}?",
    "Compute {} + {}",
    "Add {} + {}",
    "{} + {} =",
    "Give the sum: {} + {}",
    "How much is {} + {}?",
)


def pair(rng: random.Random, split: str) -> tuple[int, int]:
    """Two numbers whose pair is on the wanted side of the split."""

    def make() -> tuple[Any, tuple[Any, ...]]:
        a, b = (rng.randint(0, 10 ** rng.choice((1, 2, 2, 2, 2, 2, 3)) - 1) for _ in range(2))
        return (a, b), ("add", a, b)

    return draw(make, split)


def item(rng: random.Random, split: str, size: int = 0) -> TaskItem:
    """One chat question."""
    a, b = pair(rng, split)
    return TaskItem("add", rng.choice(WORDING).format(a, b), str(a + b))


def plain(rng: random.Random, split: str, n: int) -> TrainingDoc:
    """A completion document of `n` sums."""
    pairs = [pair(rng, split) for _ in range(n)]
    return pairs_doc(
        [(f"{a} + {b}", str(a + b)) for a, b in pairs],
        lambda q: f"{q} =",
        "add",
        weight=0.02,
    )

"""Little stories by grammar, with an ending that only the beginning determines."""

from __future__ import annotations

import random
from typing import Any

from umbel.demo.tasks import words
from umbel.demo.tasks.base import TaskItem, TrainingDoc, draw

OPEN = (
    "One day, {n} found a {a} {o} in the {p}.",
    "Once upon a time, {n} had a {a} {o}.",
    "{n} was walking near the {p} and saw a {a} {o}.",
    "In the morning, {n} got a {a} {o} as a gift.",
)
MIDDLE = (
    "{n} wanted to show it to a friend named {f}.",
    "A {m} came by and looked at it.",
    "It was very {d}.",
    "{f} asked if they could play together.",
    "The sun was warm and the birds sang.",
    "They sat down and ate some {e}.",
    "{n} was happy and smiled.",
    "Then it started to rain, so they ran home.",
)
CLOSE = (
    ("In the end, {n} gave the {a}", "{o} to {f}."),
    ("At night, {n} put the {a}", "{o} under the bed."),
    ("{f} said thank you and they both loved the {a}", "{o}."),
    ("They carried the {a}", "{o} back to the {p}."),
)
PLACES = (
    "park",
    "garden",
    "forest",
    "market",
    "kitchen",
    "school",
    "river",
    "beach",
    "barn",
    "library",
)


def story(rng: random.Random, split: str) -> Any:
    """(all but the ending, ending): the ending starts with the object the story is about."""

    def make() -> tuple[Any, tuple[Any, ...]]:
        v = {
            "n": rng.choice(words.FIRST),
            "f": rng.choice(words.FIRST),
            "a": rng.choice(words.ADJ),
            "o": rng.choice(words.NOUN),
        }
        v |= {
            "p": rng.choice(PLACES),
            "m": rng.choice(words.ANIMAL),
            "d": rng.choice(words.ADJ),
            "e": rng.choice(words.FOOD),
        }
        middle = rng.sample(MIDDLE, rng.randint(2, 4))
        close, end = rng.choice(CLOSE)
        begin = " ".join(x.format(**v) for x in (rng.choice(OPEN), *middle, close))
        return (begin, end.format(**v)), ("story", v["n"], v["a"], v["o"])

    return draw(make, split)


def plain(rng: random.Random, split: str, n: int = 1) -> TrainingDoc:
    """A plain document of one story."""
    begin, end = story(rng, split)
    return TrainingDoc().add(begin, 0.3, "story").add(" " + end, 1.0, "story")


def item(rng: random.Random, split: str, size: int = 0) -> TaskItem:
    """A chat question: finish the story."""
    begin, end = story(rng, split)
    return TaskItem("story", f"Finish the story: {begin}", end)

"""Look up the value of one key among distractors, up to any context size."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from umbel.demo.tasks import words
from umbel.demo.tasks.base import TaskItem, draw

# (introduction, line, question); {k} key, {v} value, {a} what the value is called
FORMS = (
    ("Here is a list of records.", "{k}: {v}", "What is the value for {k}?"),
    ("Records:", "{k} = {v}", "Look up {k}."),
    ("Read this table.", "{k} -> {v}", "Which entry belongs to {k}?"),
    ("Notes:", "The {a} of {k} is {v}.", "What is the {a} of {k}?"),
    ("Remember these facts.", "{k} has the {a} {v}.", "Which {a} does {k} have?"),
    ("Directory", "{k} | {a} | {v}", "Find the {a} of {k}."),
)


def _key_maker(rng: random.Random, many: bool) -> Callable[[], str]:
    makers = (
        lambda: words.full(rng),
        lambda: f"{rng.choice(words.ADJ)} {rng.choice(words.ANIMAL + words.NOUN)}",
        lambda: words.code(rng),
        lambda: words.first(rng),
        lambda: rng.choice(words.NOUN + words.ANIMAL + words.FOOD),
    )
    return rng.choice(makers[:3] if many else makers)  # the last two run out of different keys


def _value_maker(rng: random.Random) -> tuple[str, Callable[[], str]]:
    name, make = rng.choice(
        (
            ("color", lambda: rng.choice(words.COLOR)),
            ("number", lambda: words.digits(rng, rng.randint(2, 5))),
            ("city", lambda: words.city(rng)),
            ("word", lambda: rng.choice(words.PLAIN)),
            ("code", lambda: words.code(rng)),
            ("owner", lambda: words.full(rng)),
            ("password", lambda: f"{rng.choice(words.ADJ)} {rng.choice(words.NOUN)}"),
        )
    )
    return name, make


def thread(
    rng: random.Random,
    split: str,
    size: int,
    questions: int = 4,
    lines: int | None = None,
    depth: float | None = None,
) -> tuple[str, list[TaskItem]]:
    """A context of about `size` tokens and several items that ask about it.

    The asked (key, value) pairs are on the wanted side of the split; every distractor is on the training side. With a
    `depth` one pair is asked for, which stands at that share of the context.
    """
    key_of, (attribute, value_of) = (
        _key_maker(rng, max(size // 8, lines or 0) > 60),
        _value_maker(rng),
    )
    intro, line, question = rng.choice(FORMS)
    per_line = 6 + (4 if "{a}" in line else 0) + (3 if attribute in ("number", "code", "owner") else 0)
    count = lines or max(2, min(600, size // per_line))
    asked = set(rng.sample(range(count), min(questions, count)))
    if depth is not None:
        asked = {round(depth * (count - 1))}
    table = {}
    for i in range(count):
        side = split if i in asked else "train"

        def make() -> tuple[Any, tuple[Any, ...]]:
            key, value = key_of(), value_of()
            return (key, value), ("lookup", key, value)

        key, value = draw(make, side)
        if key in table:
            asked.discard(i)
        else:
            table[key] = (value, i)
    rows = [line.format(k=k, v=v, a=attribute) for k, (v, _) in table.items()]
    context = intro + "\n" + "\n".join(rows)
    wanted = [(k, v) for k, (v, i) in table.items() if i in asked] or [(k, v) for k, (v, _) in list(table.items())[-1:]]
    rng.shuffle(wanted)
    return context, [TaskItem("lookup", question.format(k=k, a=attribute), v, context) for k, v in wanted]


def item(rng: random.Random, split: str, size: int = 60) -> TaskItem:
    """One chat question with its own context."""
    return thread(rng, split, size, questions=1)[1][0]

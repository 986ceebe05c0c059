"""Copying: repeat words, letters or digits exactly."""

from __future__ import annotations

import random
import string
from typing import Any

from umbel.demo.tasks import words
from umbel.demo.tasks.base import TaskItem, TrainingDoc, draw, pairs_doc

WORDING = (
    "Repeat exactly: {}",
    "Copy this text: {}",
    "Copy: {}",
    "Say this back to me: {}",
    "Write the following again, unchanged: {}",
    "Echo: {}",
    "Repeat after me: {}",
    "Print this string as it is: {}",
)


def _string(rng: random.Random) -> str:
    kind = rng.randrange(6)
    if kind == 0:
        text = " ".join(rng.choice(words.PLAIN) for _ in range(rng.randint(2, 10)))
    elif kind == 1:
        text = "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(4, 16)))
    elif kind == 2:
        text = "".join(rng.choice(string.digits) for _ in range(rng.randint(4, 14)))
    elif kind == 3:
        text = "".join(rng.choice(string.ascii_letters + string.digits) for _ in range(rng.randint(4, 14)))
    elif kind == 4:
        text = " ".join(words.made_up(rng) for _ in range(rng.randint(1, 5)))
    else:
        text = f"{words.full(rng)} {words.code(rng)} {words.city(rng)} {words.digits(rng, rng.randint(2, 5))}"
    return text


def sample(rng: random.Random, split: str) -> Any:
    """A string never seen on the other side of the split."""

    def make() -> tuple[Any, tuple[Any, ...]]:
        text = _string(rng)
        return text, ("copy", text)

    return draw(make, split)


def item(rng: random.Random, split: str, size: int = 0) -> TaskItem:
    """One chat question."""
    text = sample(rng, split)
    return TaskItem("copy", rng.choice(WORDING).format(text), text)


def plain(rng: random.Random, split: str, n: int) -> TrainingDoc:
    """A completion document of `n` copies."""
    head, tail = rng.choice((("Text:", "Copy:"), ("Input:", "Output:"), ("String:", "Again:")))
    texts = [sample(rng, split) for _ in range(n)]
    return pairs_doc([(t, t) for t in texts], lambda q: f"{head} {q}\n{tail}", "copy", weight=0.03)

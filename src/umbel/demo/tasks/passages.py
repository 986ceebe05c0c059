"""Answer a question from one of several passages."""

from __future__ import annotations

import random
from typing import Any

from umbel.demo.tasks import words
from umbel.demo.tasks.base import TaskItem, draw

# per kind of subject: facts as (sentence, question, value maker); {s} is the subject
KINDS = (
    (
        lambda rng: f"the {words.made_up(rng)} {rng.choice(('Museum', 'Library', 'Theater', 'Hotel', 'School'))}",
        (
            (
                "{s} opened in {v}.",
                "When did {s} open?",
                lambda rng: str(rng.randint(1800, 2020)),
            ),
            ("It stands in {v}.", "Where does {s} stand?", words.city),
            ("It was built by {v}.", "Who built {s}?", words.full),
            (
                "Its door is painted {v}.",
                "What color is the door of {s}?",
                lambda rng: rng.choice(words.COLOR),
            ),
        ),
    ),
    (
        words.full,
        (
            (
                "{s} works as a {v}.",
                "What is the job of {s}?",
                lambda rng: rng.choice(words.JOB),
            ),
            (
                "The family home is in {v}.",
                "Where is the home of {s}?",
                words.city,
            ),
            (
                "Every {v} there is a music lesson.",
                "When is the music lesson of {s}?",
                lambda rng: rng.choice(words.DAY),
            ),
            (
                "A pet {v} sleeps by the fire.",
                "Which pet does {s} have?",
                lambda rng: rng.choice(words.ANIMAL),
            ),
        ),
    ),
    (
        lambda rng: f"{words.made_up(rng)} {rng.choice(('Trading', 'Foods', 'Tools', 'Motors', 'Books'))}",
        (
            (
                "{s} was founded by {v}.",
                "Who founded {s}?",
                words.full,
            ),
            (
                "The office is in {v}.",
                "Where is the office of {s}?",
                words.city,
            ),
            (
                "It sells mostly {v}s.",
                "What does {s} sell?",
                lambda rng: rng.choice(words.NOUN),
            ),
            (
                "It has {v} workers.",
                "How many workers does {s} have?",
                lambda rng: words.digits(rng, rng.randint(2, 3)),
            ),
        ),
    ),
)
INTRO = (
    "Read the passages and answer the question.",
    "Use the passages below.",
    "Answer from the passages.",
)


def _passage(rng: random.Random, split: str) -> Any:
    def make() -> tuple[Any, tuple[Any, ...]]:
        subject_of, facts = rng.choice(KINDS)
        subject, values = subject_of(rng), [value(rng) for _, _, value in facts]
        return (subject, facts, values), ("passage", subject)

    return draw(make, split)


def thread(rng: random.Random, split: str, size: int, questions: int = 4) -> tuple[str, list[TaskItem]]:
    """Several passages of about 35 tokens each and items that ask about them."""
    count = max(2, size // 38)
    told, items = [], []
    asked = set(rng.sample(range(count), min(count, questions)))
    for i in range(count):
        subject, facts, values = _passage(rng, split if i in asked else "train")
        chosen = sorted(rng.sample(range(1, 4), rng.randint(1, 3)))
        lines = [facts[j][0].format(s=subject, v=values[j]) for j in [0, *chosen]]
        body = " ".join(lines)
        told.append(f"[{i + 1}] {body[0].upper()}{body[1:]}")
        if i in asked:
            j = rng.choice([0, *chosen])
            items.append((facts[j][1].format(s=subject), values[j]))
    context = rng.choice(INTRO) + "\n" + "\n".join(told)
    rng.shuffle(items)
    return context, [TaskItem("passage", f"Question: {q}", a, context) for q, a in items]


def item(rng: random.Random, split: str, size: int = 120) -> TaskItem:
    """One chat question with its own passages."""
    return thread(rng, split, size, questions=1)[1][0]

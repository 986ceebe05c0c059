"""Extract fields from a sentence into JSON."""

from __future__ import annotations

import json
import random
from typing import Any

from umbel.demo.tasks import words
from umbel.demo.tasks.base import TaskItem, draw

TEMPLATES = (
    "{name} from {city} ordered {count} {item}s on {day}.",
    "On {day}, {name} bought {count} {item}s in {city}.",
    "{name} lives in {city} and works as a {job}.",
    "The {job} {name} moved to {city} in {month}.",
    "Please send {count} {item}s to {name} in {city}.",
    "{name}, a {job}, will arrive on {day} in {city}.",
    "Order {code}: {count} {item}s for {name}.",
    "{name} returned a {color} {item} on {day}.",
    "A {color} {item} was found in {city} by {name}.",
    "{name} paid {count} dollars for a {color} {item}.",
    "Ticket {code} was opened by {name} on {day}.",
    "In {month}, {name} sold the {color} {item} to a {job} in {city}.",
)
WORDING = (
    "Extract {f} as JSON: {t}",
    "Return JSON with the fields {f}.\nText: {t}",
    "Read the text and give {f} as JSON.\n{t}",
    "Fields: {f}\nText: {t}",
)


def _fields(rng: random.Random) -> dict[str, str]:
    return {
        "name": words.full(rng),
        "city": words.city(rng),
        "item": rng.choice(words.NOUN),
        "count": str(rng.randint(2, 99)),
        "day": rng.choice(words.DAY),
        "month": rng.choice(words.MONTH),
        "job": rng.choice(words.JOB),
        "color": rng.choice(words.COLOR),
        "code": words.code(rng),
    }


def sample(rng: random.Random, split: str) -> Any:
    """A sentence, the wanted field names and the JSON answer."""

    def make() -> tuple[Any, tuple[Any, ...]]:
        template, values = rng.choice(TEMPLATES), _fields(rng)
        present = [f for f in values if "{" + f + "}" in template]
        wanted = rng.sample(present, rng.randint(1, min(3, len(present))))
        text = template.format(**values)
        answer = json.dumps({f: values[f] for f in wanted})
        return (text, wanted, answer), (
            "extract",
            template,
            *(values[f] for f in present),
        )

    return draw(make, split)


def item(rng: random.Random, split: str, size: int = 0) -> TaskItem:
    """One chat question."""
    text, wanted, answer = sample(rng, split)
    return TaskItem("extract", rng.choice(WORDING).format(f=", ".join(wanted), t=text), answer)

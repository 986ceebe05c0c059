"""Labelling short texts by topic, sentiment or intent, zero-shot with the label list or few-shot."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from umbel.demo.tasks import cues, words
from umbel.demo.tasks.base import TaskItem, TrainingDoc, draw, pairs_doc

Drawn = tuple[str, dict[str, Any]]
WHAT = {"topic": "topic", "sentiment": "sentiment", "intent": "intent"}
WORDING = (
    "Classify the {w} of the text as {l}.\nText: {t}",
    "What is the {w} of this text? Choose from {l}.\nText: {t}",
    "{t}\nWhich {w} is this: {l}?",
    "Label the {w} ({l}): {t}",
    "Text: {t}\nAnswer with one {w} from: {l}",
)
SHORT_WORDING = ("Text: {t}\n{W}:", "{W} of this text: {t}", "{t}\n{W}?", "{W}: {t}")


def _slots(rng: random.Random) -> dict[str, Any]:
    return {
        "name": words.first(rng),
        "city": words.city(rng),
        "day": rng.choice(words.DAY),
        "adj": rng.choice(words.ADJ),
        "thing": rng.choice(cues.THING),
        "color": rng.choice(words.COLOR),
        "n": words.digits(rng, 4),
        "k": rng.randint(2, 9),
    }


def _topic(rng: random.Random, label: Any) -> Drawn:
    nouns, verbs = cues.TOPIC[label]
    a, b = rng.sample(nouns, 2)
    return rng.choice(cues.TOPIC_FRAMES), {"a": a, "b": b, "v": rng.choice(verbs)}


def _sentiment(rng: random.Random, index: int) -> Drawn:
    if index == 2:
        return rng.choice(cues.NEUTRAL_FRAMES), {"end": rng.choice(cues.NEUTRAL_END)}
    adjectives, ends = ((cues.GOOD, cues.GOOD_END), (cues.BAD, cues.BAD_END))[index]
    return rng.choice(cues.SENTIMENT_FRAMES), {
        "w": rng.choice(adjectives),
        "end": rng.choice(ends),
    }


def _intent(rng: random.Random, label: Any) -> Drawn:
    return rng.choice(cues.INTENT_FRAMES), {"x": rng.choice(cues.INTENT[label])}


def label_set(rng: random.Random, kind: str) -> dict[str, Any]:
    """The label names offered in one prompt, in random order, and for each what the generator needs."""
    if kind == "sentiment":
        names = rng.choice(cues.SENTIMENT_LABELS)
        options = {name: i for i, name in enumerate(names) if name}
    else:
        names = list(cues.TOPIC if kind == "topic" else cues.INTENT)
        options = {name: name for name in rng.sample(names, rng.choice((2, 3, 4, 5, 8)))}
    order = list(options)
    rng.shuffle(order)
    return {name: options[name] for name in order}


def text(rng: random.Random, split: str, kind: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """(text, label) for one of the options."""
    label = rng.choice(list(options))
    build = {"topic": _topic, "sentiment": _sentiment, "intent": _intent}[kind]

    def make() -> tuple[Any, tuple[Any, ...]]:
        frame, cue = build(rng, options[label])
        slots = _slots(rng) | cue
        filled = frame
        for _ in range(2):  # cue texts have slots of their own
            filled = filled.format(**slots)
        used = [v for k, v in slots.items() if "{" + k + "}" in frame + "".join(map(str, cue.values()))]
        return (filled[0].upper() + filled[1:], label), (kind, frame, *used)

    return draw(make, split)


def ask(rng: random.Random, kind: str, options: Mapping[str, Any], sample: str) -> str:
    """The user message for one text."""
    names = list(options)
    listed = ", ".join(names[:-1]) + " or " + names[-1] if rng.random() < 0.7 else ", ".join(names)
    return rng.choice(WORDING).format(w=WHAT[kind], l=listed, t=sample)


def item(rng: random.Random, split: str, size: int = 0, kind: str | None = None) -> TaskItem:
    """One zero-shot chat question."""
    kind = kind or rng.choice(list(WHAT))
    options = label_set(rng, kind)
    sample, label = text(rng, split, kind, options)
    return TaskItem(kind, ask(rng, kind, options, sample), label)


def thread(rng: random.Random, split: str, n: int, examples: int | None = None) -> tuple[str, list[TaskItem]]:
    """A system prompt with the label list (and maybe examples) and `n` short items below it."""
    kind = rng.choice(list(WHAT))
    options = label_set(rng, kind)
    listed = ", ".join(options)
    system = rng.choice(
        (
            f"Label the {kind} of each text. Labels: {listed}. Answer with the label only.",
            f"You classify texts by {kind}. Possible answers: {listed}.",
            f"You are a careful annotator. For every text, give its {kind}: one of {listed}.",
        )
    )
    shots = rng.choice((0, 0, 2, 4, 6)) if examples is None else examples
    if shots:
        shown = [text(rng, "train", kind, options) for _ in range(shots)]
        system += "\nExamples:\n" + "\n".join(f"Text: {t}\n{kind.capitalize()}: {lab}" for t, lab in shown)
    wording = rng.choice((*SHORT_WORDING, "{t}"))
    items = []
    for _ in range(n):
        sample, label = text(rng, split, kind, options)
        items.append(TaskItem(kind, wording.format(t=sample, W=kind.capitalize()), label))
    return system, items


def plain(rng: random.Random, split: str, n: int, shown: int = 0) -> TrainingDoc:
    """A few-shot completion document of `n` texts; with a `shown` count the first ones come from training."""
    kind = rng.choice(list(WHAT))
    options = label_set(rng, kind)
    head, tail = rng.choice(
        (
            ("Text", "Label"),
            ("Text", kind.capitalize()),
            ("Input", "Output"),
            ("Review", "Label"),
        )
    )
    pairs = [text(rng, "train" if i < shown else split, kind, options) for i in range(n)]
    intro = f"Labels: {', '.join(options)}\n" if rng.random() < 0.5 else ""
    return pairs_doc(pairs, lambda q: f"{head}: {q}\n{tail}:", kind, intro=intro)

"""What a task hands back, and the hash split that keeps held-out material out of training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

HELD_OUT_SHARE = 10  # one unit in ten is never seen in training


def held_out(*parts: object) -> bool:
    """True when this combination of words belongs to the evaluation side, for good."""
    digest = hashlib.md5("\x1f".join(map(str, parts)).encode()).digest()
    return digest[0] % HELD_OUT_SHARE == 0


def draw(make: Callable[[], tuple[Any, tuple[Any, ...]]], split: str, tries: int = 400) -> Any:
    """Call `make() -> (value, key)` until the key falls on the side named by `split` ("train" or "eval")."""
    for _ in range(tries):
        value, key = make()
        if held_out(*key) == (split == "eval"):
            return value
    raise RuntimeError(f"no {split} sample in {tries} tries")


@dataclass
class TaskItem:
    """One prompt with its answer; `context` comes before the question and may serve several items."""

    task: str
    question: str
    answer: str
    context: str = ""

    @property
    def prompt(self) -> str:
        """The user message: context, then question."""
        return f"{self.context}\n\n{self.question}" if self.context else self.question


@dataclass
class TrainingDoc:
    """Text segments with the weight their tokens carry in the loss and the task they are counted under."""

    segments: list[tuple[str, float, str]] = field(default_factory=list)

    def add(self, text: str, weight: float, task: str) -> TrainingDoc:
        """Append one segment; segment borders must also be pre-token borders."""
        if text:
            self.segments.append((text, weight, task))
        return self

    def text(self) -> str:
        """All segments joined."""
        return "".join(s[0] for s in self.segments)


def pairs_doc(
    pairs: Sequence[tuple[str, str]], before: Callable[[str], str], task: str, weight: float = 0.1, intro: str = ""
) -> TrainingDoc:
    """A plain completion document: `before` formats each question, each answer ends its line."""
    doc = TrainingDoc().add(intro, weight, task)
    for question, answer in pairs:
        doc.add(before(question), weight, task).add(f" {answer}", 1.0, task).add("\n", 1.0, task)
    return doc

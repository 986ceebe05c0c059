"""What the lab asks: held-out questions of the demo model's tasks, and rows of the user's own with their answers."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umbel.demo.tasks.cases import FAMILIES, held_out_item, is_right, lookup_of_size
from umbel.errors import UsageError, nearest
from umbel.ir.documents import Span

USUAL = "labels,extract,copy,add,passage-300,lookup-600@0.5,lookup-2000@0.1,lookup-2000@0.9"
LABELS = ("topic", "sentiment", "intent")
SIZED = ("lookup", "passage")
MOST = 48  # tokens of an answer, where a row does not say


@dataclass(frozen=True, slots=True)
class LabTask:
    """Prompts (texts, or chats as `LLM.generate` takes them), the most tokens of each answer, and what judges them:
    whether a text is right, None where that is not known. `documents`: of the message of each chat, where documents
    stand in it, in characters; empty where there are none."""

    name: str
    prompts: Sequence[Any]
    most: Sequence[int]
    judges: Sequence[Callable[[str], bool] | None]
    documents: Sequence[Sequence[Span]] = ()


def find_tasks(names: Sequence[str], rows: int, seed: int, count: Callable[[str], int]) -> list[LabTask]:
    """The tasks of these names, with so many rows each: of the demo model's, or files of rows. `count` counts the
    tokens of a text. Raises UsageError."""
    return [
        rows_of(Path(name), rows) if name.endswith((".jsonl", ".json")) else asked_task(name, rows, seed, count)
        for name in names
    ]


def asked_task(name: str, rows: int, seed: int, count: Callable[[str], int]) -> LabTask:
    """One of the demo model's tasks: labels, copy, add, extract, story, passage-SIZE, lookup-SIZE or lookup-SIZE@DEPTH,
    where SIZE is in tokens and DEPTH the share of the context before what is asked for. Raises UsageError."""
    plain, _, depth = name.partition("@")
    family, _, size = plain.partition("-")
    known = ("labels", *FAMILIES)
    sized = family in SIZED and size.isdigit()
    placed = not depth or (family == "lookup" and _share(depth) is not None)
    if family not in known or not placed or (bool(size) and not sized):
        listed = ", ".join(f"{one}-SIZE" if one in SIZED else one for one in known)
        raise UsageError(f"tasks={name!r}: no task{nearest(family, known)}; there are {listed}, or FILE.jsonl")
    rng, items = random.Random(f"{seed}-{name}"), []
    for row in range(rows):
        task = LABELS[row % len(LABELS)] if family == "labels" else family
        if family == "lookup" and sized:
            items.append(lookup_of_size(rng, int(size), count, _share(depth) if depth else None))
        else:
            items.append(held_out_item(rng, task, int(size or 100)))
    chats = [{"messages": [{"role": "user", "content": item.prompt}]} for item in items]
    documents = [_passages(item.prompt) for item in items] if family == "passage" else ()
    return LabTask(name, chats, [MOST] * rows, [_judge(family, item.answer) for item in items], documents)


def _passages(text: str) -> list[Span]:
    """Where the passages of a question stand: lines that begin with a number in brackets."""
    return [found.span() for found in re.finditer(r"^\[\d+\] .*\n", text, re.M)]


def _share(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def _judge(family: str, answer: str) -> Callable[[str], bool]:
    return lambda guess: is_right(family, guess.strip(), answer)


def rows_of(path: Path, most: int) -> LabTask:
    """A file of the user's own, a JSON object a line, the first `most` of them: `prompt` or `messages`, `expected` (a
    text, several that are all right, or an object of JSON; may be left out) and `max_tokens`. Raises UsageError."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--tasks {path}: cannot be read ({error})") from None
    rows = [_row(path, number, line) for number, line in enumerate(lines[:most], 1)]
    if not rows:
        raise UsageError(f"--tasks {path}: has no rows")
    prompts = [{"messages": row["messages"]} if "messages" in row else row["prompt"] for row in rows]
    limits = [int(row.get("max_tokens") or MOST) for row in rows]
    return LabTask(path.name, prompts, limits, [_expects(row) for row in rows])


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UsageError(f"--tasks {path}: line {number} is not JSON ({error})") from None
    if not isinstance(row, dict) or not ("prompt" in row or "messages" in row):
        raise UsageError(f"--tasks {path}: line {number} must be an object with prompt or messages, and expected")
    return row


def _expects(row: Mapping[str, Any]) -> Callable[[str], bool] | None:
    """What judges a row's answer: blanks around it do not count, nor do those of JSON."""
    wanted = row.get("expected")
    if wanted is None:
        return None
    several = wanted if isinstance(wanted, list) else [wanted]
    return lambda text: any(_equal(text.strip(), one) for one in several)


def _equal(text: str, wanted: object) -> bool:
    if isinstance(wanted, str) and text == wanted.strip():
        return True
    try:
        found, expected = json.loads(text), json.loads(wanted) if isinstance(wanted, str) else wanted
    except ValueError:
        return False
    return bool(found == expected)

"""The first words of what rows share, for the lines of a plan's tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from umbel.ir.plan import Plan
from umbel.ir.workload import Workload
from umbel.plan.explain.tree import Line

FIRST_TOKENS = 32  # of a run that are looked at
CHARACTERS = 90  # of a text that are shown

Spell = Callable[[Sequence[int]], str]


def no_words(ids: Sequence[int]) -> str:
    """Where nothing can spell tokens."""
    return ""


def put_words(
    tree: Sequence[dict[str, Any]], lines: Sequence[Line], plan: Plan, workload: Workload, spell: Spell
) -> None:
    """Give each line of a record's tree, made of `lines`, its `text`: how its run begins, "" where nothing is
    shared."""
    for entry, line in zip(tree, lines, strict=True):
        entry["text"] = _text(line, plan, workload, spell) if line.kind == "run" else ""


def _text(line: Line, plan: Plan, workload: Workload, spell: Spell) -> str:
    row = int(plan.forest.source[line.node])
    end = line.end - places_of(plan, workload, row)
    start = max(end - line.tokens, 0)
    ids = workload.prompt(row)[start : max(min(end, start + FIRST_TOKENS), 0)]
    spelt = spell(ids.tolist()).replace("\ufffd", " ")
    text = " ".join(spelt.split())
    if text and start:  # it goes on, perhaps in the middle of a word
        text = f"…{' ' if spelt[0].isspace() else ''}{text}"
    return shortened(text, more=line.tokens > FIRST_TOKENS) if text else ""


def places_of(plan: Plan, workload: Workload, row: int) -> int:
    """Positions before the tokens of a row in the plan's forest: those of a soft prompt."""
    return int(plan.forest.end[plan.forest.leaf[row]]) - len(workload.prompt(row))


def shortened(text: str, most: int = CHARACTERS, *, more: bool = False) -> str:
    """A text cut at a word, with dots where something is left out (`more`: also behind its end)."""
    if len(text) > most:
        text, more = text[:most].rsplit(" ", 1)[0] or text[:most], True
    return f"{text} …" if more else text

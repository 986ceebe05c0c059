"""Draws a forest as rows by tokens, and lists what its blocks are: how many rows share what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from umbel.plan.explain.svg import WIDTH, Box, box_of, picture, short, text
from umbel.plan.explain.text import count
from umbel.plan.explain.words import shortened

SHADES = 5  # of shared runs, by how much of the whole saving is theirs
HEIGHT = 340
_SMALLEST = 3.0  # pixels of a block's height that are always drawn
_LETTER = 6.4  # pixels of a letter, about

Line = Mapping[str, Any]


def forest(tree: Sequence[Line], *, label: str) -> Markup:
    """The prompts as columns, rows side by side and tokens downwards: a run that rows share is one block.

    The area is what would be computed without sharing; of a block of `rows` columns only one is. Blocks are shaded by
    the tokens that they save, and those of runs have the numbers of `runs`.
    """
    kids: dict[int, list[int]] = {}
    for i, line in enumerate(tree):
        kids.setdefault(int(line["parent"]), []).append(i)
    rows = sum(tree[i]["rows"] for i in kids.get(-1, []))
    deepest = max((_depth(tree, i) for i in range(len(tree))), default=0.0)
    if not rows or not deepest:
        return picture([text(WIDTH / 2, HEIGHT / 2, "no prompts", "label", "middle")], HEIGHT, label)
    box = Box(rows, deepest, HEIGHT)
    most = max((line["saved_tokens"] for line in tree), default=0)
    numbers = {i: n for n, i in enumerate(_runs(tree), 1)}
    parts = [*box.grid("rows, side by side", "tokens of a prompt, first to last", downwards=True, least=1.0)]
    todo = [(-1, 0.0)]
    while todo:
        at, x = todo.pop()
        for i in kids.get(at, []):
            start = _depth(tree, int(tree[i]["parent"]))
            parts += _block(box, tree[i], numbers.get(i, 0), x, start, shade_of(tree[i], most))
            todo.append((i, x))
            x += tree[i]["rows"]
    return picture(parts, HEIGHT, label)


def _runs(tree: Sequence[Line]) -> list[int]:
    """The places of shared runs, in the order of the plan."""
    return [i for i, line in enumerate(tree) if line["kind"] == "run"]


def shade_of(line: Line, most: float) -> int:
    """How strong a block's colour is: 0 where nothing is saved, SHADES for the one that saves `most`."""
    saved = line["saved_tokens"]
    return 1 + min(SHADES - 1, int(SHADES * saved / most)) if most and saved else 0


def runs(tree: Sequence[Line]) -> list[dict[str, Any]]:
    """The shared runs by what they save, most first: the number on the block, its shade, and the line of the tree."""
    most = max((line["saved_tokens"] for line in tree), default=0)
    found = [
        {"text": "", **tree[i], "number": n, "shade": shade_of(tree[i], most)} for n, i in enumerate(_runs(tree), 1)
    ]
    return sorted((run for run in found if run["rows"] > 1), key=lambda run: -run["saved_tokens"])


def _depth(tree: Sequence[Line], at: int) -> float:
    """How far down a line reaches, in tokens; of lines that sum up others, on average over their rows."""
    if at < 0:
        return 0.0
    line = tree[at]
    if line["kind"] in ("run", "end"):
        return float(line["end"])
    above = tree[line["parent"]]["end"] if line["parent"] >= 0 else 0
    return float(above) + _mean(line)


def _mean(line: Line) -> float:
    """Prompt tokens of one row below a line that sums up others."""
    return float((line["tokens"] + line["saved_tokens"]) / max(line["rows"], 1))


def _block(box: Box, line: Line, number: int, x: float, start: float, shade: int) -> Iterator[str]:
    kind, rows = line["kind"], line["rows"]
    if kind == "end":
        return
    end = line["end"] if kind == "run" else start + _mean(line)
    left, right, above, below = box.x(x), box.x(x + rows), box.down(start), box.down(end)
    tall, wide = max(below - above, _SMALLEST), max(right - left, 0.5)
    name = {"run": f"run s{shade}", "own": "own", "rest": f"rest s{shade}"}[str(kind)]
    yield box_of(left, above, wide, tall, name, _title(line, number))
    said = _said(line, number, int((wide - 6) / _LETTER), int((tall - 4) // 15))
    first = above + tall / 2 + 4 - 7.5 * (len(said) - 1)
    for i, one in enumerate(said):
        yield text(left + wide / 2, first + 15 * i, one, f"inside {name.split()[0]} on{shade}", "middle")


def _title(line: Line, number: int) -> str:
    """What a block is, said when it is pointed at."""
    rows, tokens, saved = line["rows"], line["tokens"], line["saved_tokens"]
    if line["kind"] == "own":
        return f"{count(rows, 'row')}, each with tokens of its own: {tokens:,} in all, nothing shared"
    if line["kind"] == "rest":
        branches = f"{line['branches']:,} smaller branch{'' if line['branches'] == 1 else 'es'}"
        return f"{branches} of {count(rows, 'row')} in all, {tokens:,} tokens, {saved:,} saved"
    words = f": {line['text']}" if line.get("text") else ""
    return f"{number}. {count(tokens, 'token')} that {count(rows, 'row')} share, {saved:,} saved{words}"


def _said(line: Line, number: int, room: int, lines: int) -> list[str]:
    """What stands on a block that has room for so many `lines` of so many letters."""
    rows, tokens, noun = short(line["rows"]), short(line["tokens"]), "row" if line["rows"] == 1 else "rows"
    if line["kind"] == "own":
        forms = [[f"{rows} {noun}, own tokens"], [f"{rows} {noun}"], [rows, noun]]
    elif line["kind"] == "rest":
        branches = "branch" if line["branches"] == 1 else "branches"
        many = short(line["branches"])
        forms = [[f"{many} {branches} of {rows} {noun}"], [f"{many} {branches}"], [many, branches]]
    else:
        sizes, words = f"{tokens} × {rows}", _first_words(line, room)
        forms = [[f"{number}: {tokens} tokens × {rows} {noun}", *words], [f"{number}: {sizes}", *words]]
        forms += [[str(number), sizes, *words], [str(number), sizes], [str(number)]]
        forms = [form[:lines] for form in forms] if lines > 0 else []
    return next((form for form in forms if len(form) <= lines and max(map(len, form)) <= room), [])


def _first_words(line: Line, room: int) -> list[str]:
    """The beginning of what a run is, where a word or two of it have room."""
    return [shortened(line["text"], room - 2)] if line.get("text") and room >= 10 else []

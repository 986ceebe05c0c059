"""Draws small SVG pictures with nothing but text: axes, curves against a limit, and a forest as rows by tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Any

from markupsafe import Markup, escape

from umbel.plan.explain.text import count

WIDTH = 720
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 24, 34
SHADES = 5  # of shared runs, by how much of the whole saving is theirs
_SMALLEST = 3.0  # pixels of a block's height that are always drawn


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a picture: its points, its name in the legend and its class in the style sheet."""

    x: Sequence[float]
    y: Sequence[float]
    name: str
    style: str
    steps: bool = False  # each value holds from the point before to its own
    filled: bool = False


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Round numbers between two values, about n of them."""
    if high <= low:
        return [low]
    raw = (high - low) / n
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = floor(low / step + 0.999)
    return [i * step for i in range(first, floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number for an axis: 1,200, 12k, 3.4M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"


def curves(
    series: Sequence[Series],
    *,
    label: str,
    x_label: str,
    limit: float | None = None,
    limit_name: str = "",
    height: int = 220,
) -> Markup:
    """Lines over a common axis from zero, with a dashed `limit` where it lies near enough to be seen."""
    top = max((max(s.y, default=0.0) for s in series), default=0.0)
    shown = limit is not None and limit <= 4 * top
    highest = (max(top, limit or 0.0) if shown else top) * 1.08 or 1.0
    longest = max((s.x[-1] for s in series if len(s.x)), default=0.0) or 1.0
    box = _Box(longest, highest, height)
    parts = [*box.grid(x_label)]
    parts += [part for s in series for part in box.line(s)]
    if limit is not None and shown:
        parts.append(_text_line(LEFT, WIDTH - RIGHT, box.y(limit), "limit"))
        parts.append(_text(WIDTH - RIGHT - 4, box.y(limit) - 5, f"{limit_name} {limit:,.0f}", "limit", "end"))
    elif limit is not None:
        parts.append(_text(WIDTH - RIGHT - 4, TOP - 8, f"{limit_name} {limit:,.0f}, far above", "limit", "end"))
    parts += _legend(series)
    return _svg(parts, height, label)


def forest(tree: Sequence[Mapping[str, Any]], *, label: str, height: int = 320) -> Markup:
    """The prompts as columns, rows side by side and tokens downwards: a run that rows share is one block.

    The area is what would be computed without sharing; of a block of `rows` columns only one is. Blocks are shaded by
    the tokens that they save.
    """
    kids: dict[int, list[int]] = {}
    for i, line in enumerate(tree):
        kids.setdefault(int(line["parent"]), []).append(i)
    rows = sum(tree[i]["rows"] for i in kids.get(-1, []))
    deepest = max((_depth(tree, i) for i in range(len(tree))), default=0.0)
    if not rows or not deepest:
        return _svg([_text(WIDTH / 2, height / 2, "no prompts", "label", "middle")], height, label)
    box = _Box(rows, deepest, height)
    most = max((line["saved_tokens"] for line in tree), default=0)
    parts = [*box.grid("rows", downwards=True)]
    todo = [(-1, 0.0)]
    while todo:
        at, x = todo.pop()
        for i in kids.get(at, []):
            parts += _block(box, tree[i], x, _depth(tree, int(tree[i]["parent"])), most)
            todo.append((i, x))
            x += tree[i]["rows"]
    return _svg(parts, height, label)


def _depth(tree: Sequence[Mapping[str, Any]], at: int) -> float:
    """How far down a line reaches, in tokens; of lines that sum up others, on average over their rows."""
    if at < 0:
        return 0.0
    line = tree[at]
    if line["kind"] in ("run", "end"):
        return float(line["end"])
    above = tree[line["parent"]]["end"] if line["parent"] >= 0 else 0
    return float(above) + _mean(line)


def _mean(line: Mapping[str, Any]) -> float:
    """Prompt tokens of one row below a line that sums up others."""
    return float((line["tokens"] + line["saved_tokens"]) / max(line["rows"], 1))


def _block(box: _Box, line: Mapping[str, Any], x: float, start: float, most: float) -> Iterator[str]:
    kind, rows = line["kind"], line["rows"]
    if kind == "end":
        return
    end = line["end"] if kind == "run" else start + _mean(line)
    left, right, above, below = box.x(x), box.x(x + rows), box.down(start), box.down(end)
    tall, wide = max(below - above, _SMALLEST), max(right - left, 0.5)
    shade = 1 + min(SHADES - 1, int(SHADES * line["saved_tokens"] / most)) if most and line["saved_tokens"] else 0
    name = {"run": f"run s{shade}", "own": "own", "rest": f"rest s{shade}"}[str(kind)]
    each = f"{line['tokens']:,} tokens" if kind == "run" else f"{line['tokens']:,} tokens in all"
    title = f"{count(rows, 'row')}, {each}, {line['saved_tokens']:,} saved"
    yield (
        f'<rect class="{name}" x="{left:.1f}" y="{above:.1f}" width="{wide:.1f}" height="{tall:.1f}">'
        f"<title>{escape(title)}</title></rect>"
    )
    alone = "1 row" if rows == 1 else f"{short(rows)} rows"
    text = f"{short(line['tokens'])} × {short(rows)}" if kind == "run" else alone
    if wide > 8 * len(text) and tall > 15:
        yield _text(left + wide / 2, above + tall / 2 + 4, text, f"inside on{shade}", "middle")


@dataclass(frozen=True, slots=True)
class _Box:
    """The area of a picture, which maps values to pixels."""

    longest: float
    highest: float
    height: int

    def x(self, value: float) -> float:
        """Pixels from the left."""
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self.longest

    def y(self, value: float) -> float:
        """Pixels from the top, of a value that grows upwards."""
        return self.height - BOTTOM - (self.height - TOP - BOTTOM) * value / self.highest

    def down(self, value: float) -> float:
        """Pixels from the top, of a value that grows downwards."""
        return TOP + (self.height - TOP - BOTTOM) * value / self.highest

    def grid(self, x_label: str, *, downwards: bool = False) -> Iterator[str]:
        """Lines and numbers of both axes."""
        place = self.down if downwards else self.y
        for value in ticks(0.0, self.highest):
            yield _text_line(LEFT, WIDTH - RIGHT, place(value), "grid")
            yield _text(LEFT - 6, place(value) + 4, short(value), "label", "end")
        for value in ticks(0.0, self.longest, 6):
            yield _text(self.x(value), self.height - BOTTOM + 16, short(value), "label", "middle")
        yield _text(WIDTH - RIGHT, self.height - 4, x_label, "label", "end")

    def line(self, series: Series) -> Iterator[str]:
        """A series as a path, and the area below it."""
        points: list[tuple[float, float]] = []
        before = 0.0
        for x, y in zip(series.x, series.y, strict=True):
            if series.steps:
                points.append((self.x(before), self.y(y)))
            points.append((self.x(x), self.y(y)))
            before = x
        if not points:
            return
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        if series.filled:
            bottom = self.y(0.0)
            area = f"{points[0][0]:.1f},{bottom:.1f} {path} {points[-1][0]:.1f},{bottom:.1f}"
            yield f'<polygon class="area {series.style}" points="{area}"/>'
        yield f'<polyline class="line {series.style}" points="{path}"/>'


def _legend(series: Sequence[Series]) -> Iterator[str]:
    x = float(LEFT)
    for s in series:
        yield f'<rect class="key {s.style}" x="{x:.0f}" y="{TOP - 17}" width="12" height="4"/>'
        yield _text(x + 17, TOP - 11, s.name, "label", "start")
        x += 34 + 7 * len(s.name)


def _text(x: float, y: float, text: str, style: str, anchor: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _text_line(x1: float, x2: float, y: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _svg(parts: Sequence[str], height: int, label: str) -> Markup:
    body = "\n".join(parts)
    return Markup(f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">\n{body}\n</svg>')

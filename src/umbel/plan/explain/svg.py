"""Draws small SVG pictures with nothing but text: axes with their units, and curves against a limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor, log10

from markupsafe import Markup, escape

WIDTH = 720
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 28, 44


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a picture: its points, its name in the legend and its class in the style sheet."""

    x: Sequence[float]
    y: Sequence[float]
    name: str
    style: str
    steps: bool = False  # each value holds from the point before to its own
    filled: bool = False


def ticks(low: float, high: float, n: int = 5, *, least: float = 0.0) -> list[float]:
    """Round numbers between two values, about n of them, and no nearer to each other than `least`."""
    if high <= low:
        return [low]
    raw = max((high - low) / n, least)
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
    y_label: str,
    limit: float | None = None,
    limit_name: str = "",
    height: int = 240,
) -> Markup:
    """Lines over a common axis from zero, with a dashed `limit` where it lies near enough to be seen."""
    top = max((max(s.y, default=0.0) for s in series), default=0.0)
    shown = limit is not None and limit <= 4 * top
    highest = (max(top, limit or 0.0) if shown else top) * 1.08 or 1.0
    longest = max((s.x[-1] for s in series if len(s.x)), default=0.0) or 1.0
    box = Box(longest, highest, height)
    parts = [*box.grid(x_label, y_label)]
    parts += [part for s in series for part in _drawn(box, s)]
    if limit is not None and shown:
        parts.append(rule(LEFT, WIDTH - RIGHT, box.y(limit), "limit"))
        parts.append(text(WIDTH - RIGHT - 4, box.y(limit) - 5, f"{limit_name} {limit:,.0f}", "limit", "end"))
    elif limit is not None:
        parts.append(text(WIDTH - RIGHT - 4, TOP - 12, f"{limit_name} {limit:,.0f}, far above", "limit", "end"))
    parts += legend([(s.name, s.style) for s in series])
    return picture(parts, height, label)


@dataclass(frozen=True, slots=True)
class Box:
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

    def grid(self, x_label: str, y_label: str, *, downwards: bool = False, least: float = 0.0) -> Iterator[str]:
        """Lines and numbers of both axes, no nearer than `least`, and what they count."""
        place = self.down if downwards else self.y
        for value in ticks(0.0, self.highest, least=least):
            yield rule(LEFT, WIDTH - RIGHT, place(value), "grid")
            yield text(LEFT - 6, place(value) + 4, short(value), "label", "end")
        for value in ticks(0.0, self.longest, 6, least=least):
            yield text(self.x(value), self.height - BOTTOM + 16, short(value), "label", "middle")
        yield from self.titles(x_label, y_label)

    def titles(self, x_label: str, y_label: str) -> Iterator[str]:
        """What the axes count."""
        middle = (TOP + self.height - BOTTOM) / 2
        yield text(LEFT + (WIDTH - LEFT - RIGHT) / 2, self.height - 6, x_label, "axis", "middle")
        upright = text(14, middle, y_label, "axis", "middle")
        yield upright.replace("<text ", f'<text transform="rotate(-90 14 {middle:.1f})" ', 1)


def _drawn(box: Box, series: Series) -> Iterator[str]:
    """A series as a path, and the area below it."""
    points: list[tuple[float, float]] = []
    before = 0.0
    for x, y in zip(series.x, series.y, strict=True):
        if series.steps:
            points.append((box.x(before), box.y(y)))
        points.append((box.x(x), box.y(y)))
        before = x
    if not points:
        return
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    if series.filled:
        bottom = box.y(0.0)
        area = f"{points[0][0]:.1f},{bottom:.1f} {path} {points[-1][0]:.1f},{bottom:.1f}"
        yield f'<polygon class="area {series.style}" points="{area}"/>'
    yield f'<polyline class="line {series.style}" points="{path}"/>'


def legend(series: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Names and classes of what a picture shows, in its first line."""
    x = float(LEFT)
    for name, style in series:
        yield f'<rect class="key {style}" x="{x:.0f}" y="{TOP - 21}" width="12" height="5"/>'
        yield text(x + 17, TOP - 15, name, "label", "start")
        x += 34 + 6.6 * len(name)


def text(x: float, y: float, said: str, style: str, anchor: str) -> str:
    """A text at a place."""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def rule(x1: float, x2: float, y: float, style: str) -> str:
    """A level line."""
    return f'<line class="{style}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'


def box_of(x: float, y: float, wide: float, tall: float, style: str, title: str) -> str:
    """A rectangle that says what it is when it is pointed at."""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}"'
    return f'<rect class="{style}" {place}><title>{escape(title)}</title></rect>'


def picture(parts: Sequence[str], height: int, label: str) -> Markup:
    """A picture of these parts."""
    body = "\n".join(parts)
    return Markup(f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">\n{body}\n</svg>')

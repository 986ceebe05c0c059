"""Draws curves over a doubling axis as an SVG; nothing but text is needed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from markupsafe import escape

from umbel.bench.chart import COLOURS

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 420, 70, 230, 60, 50
Points = Sequence[tuple[float, float]]


def curve(series: Mapping[str, Points], title: str, across: str, up: str) -> str:
    """A line for each of the series, over axes that double, and a dotted one for what is in proportion."""
    most = max(max(x, y) for points in series.values() for x, y in points)
    doublings = math.ceil(math.log2(most))
    parts = [*_grid(doublings), *_line([(1, 1), (2.0**doublings, 2.0**doublings)], doublings, "even")]
    for i, (name, points) in enumerate(series.items()):
        parts += _line(points, doublings, f"line c{i}")
        for x, y in points:
            at = f'class="dot c{i}" cx="{_x(x, doublings):.1f}" cy="{_y(y, doublings):.1f}" r="3.5"'
            parts.append(f"<circle {at}><title>{escape(f'{name}: {x:g} {across}, {y:.2f} {up}')}</title></circle>")
        at = f'x="{WIDTH - RIGHT + 34}" y="{TOP + 14 + 22 * i}"'
        parts.append(f'<path class="line c{i}" d="M{WIDTH - RIGHT + 10} {TOP + 10 + 22 * i}h18"/>')
        parts.append(f"<text {at}>{escape(name)}</text>")
    parts.append(f'<text class="head" x="12" y="24">{escape(title)}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(across)}</text>'
    )
    parts.append(f'<text x="12" y="46">{escape(up)}</text>')
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">'
    page = f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>'
    return "\n".join([opening, _style(len(series)), page, *parts, "</svg>"]) + "\n"


def _grid(doublings: int) -> Iterator[str]:
    for power in range(doublings + 1):
        x, y = _x(2.0**power, doublings), _y(2.0**power, doublings)
        yield f'<path class="grid" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{2**power}</text>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{2**power}</text>'


def _line(points: Points, doublings: int, style: str) -> Iterator[str]:
    path = "L".join(f"{_x(x, doublings):.1f} {_y(y, doublings):.1f}" for x, y in points)
    yield f'<path class="{style}" d="M{path}"/>'


def _x(value: float, doublings: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * math.log2(max(value, 1.0)) / max(doublings, 1)


def _y(value: float, doublings: int) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log2(max(value, 1.0)) / max(doublings, 1)


def _style(count: int) -> str:
    """The colours by day and by night."""
    light, dark = ("".join(f".c{i}{{stroke:{COLOURS[i][k]}}}.dot.c{i}{{fill:{COLOURS[i][k]}}}" for i in range(count))
                   for k in (0, 1))  # fmt: skip
    return (
        "<style>text{font:13px system-ui,sans-serif;fill:#222}.head{font-weight:600}.page{fill:#fff}"
        ".grid{stroke:#ddd;fill:none}.even{stroke:#888;stroke-dasharray:3 4;fill:none}.line{fill:none;stroke-width:2}"
        f"{light}@media(prefers-color-scheme:dark){{text{{fill:#ddd}}.page{{fill:#16191d}}.grid{{stroke:#333}}{dark}}}"
        "</style>"
    )

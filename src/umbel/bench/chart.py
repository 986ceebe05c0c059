"""Draws the share of the floor that each engine reaches as an SVG of grouped bars; nothing but text is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import escape

from umbel.bench.summary import ResultLine

WIDTH, LEFT, RIGHT, TOP, GROUP_GAP, BAR = 860, 150, 60, 64, 16, 13
COLOURS = ("#2c8a63", "#2f6fb2", "#b2642f", "#7a3fb0", "#8a8f2c", "#b3261e", "#4a5a6a", "#c2518e")


def chart(found: Sequence[ResultLine], title: str) -> str:
    """The chart: a group of bars for each workload, a bar for each engine, to 100 % of the floor."""
    cases = list(dict.fromkeys(line.case for line in found))
    engines = list(dict.fromkeys(line.engine for line in found))
    legend_rows = -(-len(engines) // 4)
    top = TOP + 18 * legend_rows
    parts, y = [], float(top)
    for case in cases:
        group = [line for line in found if line.case == case]
        parts.append(_text(LEFT - 10, y + BAR * len(group) / 2 + 4, case, "end", bold=True))
        for line in group:
            parts += _bar(y, line, COLOURS[engines.index(line.engine) % len(COLOURS)])
            y += BAR
        y += GROUP_GAP
    height = int(y) + 20
    back = [f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>', _text(LEFT, 24, title, "start", bold=True)]
    back.append(_text(LEFT, 42, "share of the arithmetic floor that is reached; longer is faster", "start"))
    lines = [*back, *_legend(engines), *_grid(top, height - 20), *parts]
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    style = 'font-family="system-ui, sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style} role="img" aria-label="{escape(title)}">'
    return "\n".join([head, *lines, "</svg>"]) + "\n"


def _bar(y: float, line: ResultLine, colour: str) -> Iterator[str]:
    width = _x(min(1.0, line.floor_share)) - LEFT
    label = f"{line.floor_share:.0%}  {line.seconds.median:.1f} s"
    tip = f"{line.engine} on {line.case}: {line.seconds} s"
    yield f'<rect x="{LEFT}" y="{y:.1f}" width="{width:.1f}" height="{BAR - 2}" fill="{colour}">'
    yield f"<title>{escape(tip)}</title></rect>"
    yield _text(LEFT + width + 5, y + BAR - 3, label, "start", size=10)


def _legend(engines: Sequence[str]) -> Iterator[str]:
    for i, engine in enumerate(engines):
        x, y = LEFT + 165 * (i % 4), 56 + 18 * (i // 4)
        yield f'<rect x="{x}" y="{y}" width="11" height="11" fill="{COLOURS[i % len(COLOURS)]}"/>'
        yield _text(x + 16, y + 10, engine, "start")


def _grid(top: float, bottom: float) -> Iterator[str]:
    for percent in (0, 25, 50, 75, 100):
        x = _x(percent / 100)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6:.0f}" y2="{bottom}" stroke="#dfe2e0"/>'
        yield _text(x, bottom + 14, f"{percent} %", "middle", size=10)


def _x(share: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * share


def _text(x: float, y: float, text: str, anchor: str, *, size: int = 12, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {where} font-size="{size}" fill="#2a2d33"{weight}>{escape(text)}</text>'

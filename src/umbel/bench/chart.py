"""Draws how many times as long as Umbel each engine took, as an SVG of grouped bars; nothing but text is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import escape

from umbel.bench.described import described
from umbel.bench.summary import OURS, ResultLine
from umbel.plan.explain.svg import ticks

WIDTH, LEFT, RIGHT, TOP, GROUP_GAP, BAR = 860, 120, 190, 66, 16, 19
COLOURS = (
    ("#2c8a63", "#5fc499"),  # light, dark
    ("#2f6fb2", "#6ea8e6"),
    ("#b2642f", "#e39a64"),
    ("#7a3fb0", "#c79bf0"),
    ("#8a8f2c", "#c9ce62"),
    ("#b3261e", "#ff8a80"),
    ("#4a5a6a", "#9fb2c6"),
    ("#c2518e", "#f09ac8"),
)


def chart(found: Sequence[ResultLine], title: str, ours: str = OURS) -> str:
    """The chart: a group of bars for each workload, a bar for each engine, as long as the times that it took what the
    engine `ours` took; a line at its end goes from its fastest round to its slowest."""
    measured = [line for line in found if line.slower is not None]
    cases = list(dict.fromkeys(line.case for line in measured))
    engines = list(dict.fromkeys(line.engine for line in measured))
    longest = max((_most(line) for line in measured), default=1.0) * 1.02
    parts, y = [], float(TOP)
    for case in cases:
        y += 16
        words = described(case)
        parts.append(_text(12, y - 4, f"{case}: {words}" if words else case, "start", style="case"))
        for line in (line for line in measured if line.case == case):
            parts += _bar(y, line, engines.index(line.engine) % len(COLOURS), longest)
            y += BAR
        y += GROUP_GAP
    height = int(y) + 40
    head = [_text(12, 24, title, "start", style="head"), _text(12, 44, _measure(measured, ours), "start")]
    lines = [f'<rect class="page" width="{WIDTH}" height="{height}"/>', *head]
    lines += [*_grid(longest, TOP, height - 40), *parts]
    lines.append(_text((LEFT + WIDTH - RIGHT) / 2, height - 8, f"times as long as {ours}", "middle"))
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">'
    return "\n".join([opening, _style(), *lines, "</svg>"]) + "\n"


def _measure(measured: Sequence[ResultLine], ours: str) -> str:
    repeated = any(line.seconds.count > 1 for line in measured)
    spread = "median seconds [fastest, slowest round]" if repeated else "seconds of one round"
    return f"Speed-up of {ours} over each engine: how many times as long it takes, and its {spread}"


def _most(line: ResultLine) -> float:
    """The longest that a bar reaches, with its line."""
    assert line.slower is not None
    return line.slower.median * line.seconds.high / line.seconds.median


def _bar(y: float, line: ResultLine, colour: int, longest: float) -> Iterator[str]:
    """A bar, the engine's name before it, and behind it what it says."""
    assert line.slower is not None
    times, seconds = line.slower.median, line.seconds
    end, middle = _x(times, longest), y + (BAR - 4) / 2
    yield _text(LEFT - 8, y + BAR - 7, line.engine, "end", style="engine")
    yield f'<rect class="bar c{colour}" x="{LEFT}" y="{y:.1f}" width="{end - LEFT:.1f}" height="{BAR - 4}">'
    yield f"<title>{escape(f'{line.engine} on {line.case}: {times:.2f} times, {seconds} s')}</title></rect>"
    low, high = (_x(times * value / seconds.median, longest) for value in (seconds.low, seconds.high))
    if seconds.high > seconds.low:
        ends = "".join(f"M{x:.1f} {y + 3:.1f}v9" for x in (low, high))
        yield f'<path class="spread" d="M{low:.1f} {middle:.1f}H{high:.1f}{ends}"/>'
    label = f"{times:.2f} times" if times != 1 else "1"
    told = f"{seconds.median:.1f} s" + ("" if seconds.count == 1 else f" [{seconds.low:.1f}, {seconds.high:.1f}]")
    yield _text(max(end, high) + 8, y + BAR - 7, f"{label}, {told}", "start", style="engine")


def _grid(longest: float, top: float, bottom: float) -> Iterator[str]:
    for value in ticks(0.0, longest, 6):
        x = _x(value, longest)
        yield f'<path class="{"one" if value == 1 else "grid"}" d="M{x:.1f} {top}V{bottom}"/>'
        yield _text(x, bottom + 15, f"{value:g}", "middle", style="engine")


def _x(times: float, longest: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * times / longest


def _style() -> str:
    """Colours for light and dark pages; a picture in a page follows the reader's setting by itself."""
    light = "".join(f".c{i}{{fill:{one}}}" for i, (one, _) in enumerate(COLOURS))
    dark = "".join(f".c{i}{{fill:{two}}}" for i, (_, two) in enumerate(COLOURS))
    return (
        "<style>text{font:12px system-ui,sans-serif;fill:#2a2d33}.head{font-size:14px;font-weight:600}"
        ".case{font-weight:600;paint-order:stroke;stroke:#fff;stroke-width:5px}.engine{font-size:11px}.page{fill:#fff}.grid{stroke:#e6e8e6}.one{stroke:#8a8f96}"
        f".spread{{stroke:#1d1f24;fill:none}}{light}"
        "@media(prefers-color-scheme:dark){text{fill:#e7e8ea}.case{stroke:#1d2024}.page{fill:#1d2024}.grid{stroke:#33373d}"
        f".one{{stroke:#8a8f96}}.spread{{stroke:#fff}}{dark}}}</style>"
    )


def _text(x: float, y: float, text: str, anchor: str, *, style: str = "plain") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'

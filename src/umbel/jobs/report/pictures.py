"""Draws what only a report has: a time in its interval, and lengths of answers as planned and as they turned out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from umbel.plan.explain.svg import LEFT, RIGHT, TOP, WIDTH, Box, box_of, legend, picture, rule, short, text, ticks
from umbel.plan.explain.text import count, duration

INTERVAL_HEIGHT = 118
HISTOGRAM_HEIGHT = 250
_LABEL = 52  # pixels that the numbers of a stretch take


def interval(low: float, expected: float, high: float, actual: float, *, size: float, unit: str) -> Markup:
    """The interval that was predicted for a time as a band, the expected time in it, and the time that it took.

    All in seconds; the axis has a `unit` of `size` seconds.
    """
    box = Box(max(high, actual) * 1.06 or 1.0, 1.0, INTERVAL_HEIGHT)
    band, bottom = box.x(high) - box.x(low), INTERVAL_HEIGHT - 44
    parts = [
        *legend([("predicted interval", "band"), ("expected", "expected"), ("as it was", "real")]),
        box_of(box.x(low), TOP + 6, band, 26, "band", f"predicted: {duration(low)} to {duration(high)}"),
        box_of(box.x(expected) - 1, TOP + 6, 2, 26, "key expected", f"expected: {duration(expected)}"),
        box_of(LEFT, TOP + 13, box.x(actual) - LEFT, 12, "bar real", f"as it was: {duration(actual)}"),
        rule(LEFT, WIDTH - RIGHT, bottom, "grid"),
    ]
    for value in ticks(0.0, box.longest / size, 6):
        parts.append(text(box.x(value * size), bottom + 16, short(value), "label", "middle"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, INTERVAL_HEIGHT - 6, unit, "axis", "middle"))
    said = f"{duration(actual)}, predicted {duration(low)} to {duration(high)}"
    return picture(parts, INTERVAL_HEIGHT, f"time: {said}")


def histogram(stretches: Sequence[Mapping[str, Any]]) -> Markup:
    """Two bars for each stretch of lengths: samples that were planned to be so long, and those that were."""
    highest = max(max(one["planned"], one["answered"]) for one in stretches)
    box = Box(len(stretches), highest * 1.08, HISTOGRAM_HEIGHT)
    parts = [*legend([("planned", "tokens"), ("as it was", "real")])]
    for value in ticks(0.0, box.highest, least=1.0):
        parts.append(rule(LEFT, WIDTH - RIGHT, box.y(value), "grid"))
        parts.append(text(LEFT - 6, box.y(value) + 4, short(value), "label", "end"))
    every = -(-_LABEL * len(stretches) // (WIDTH - LEFT - RIGHT))
    for i, one in enumerate(stretches):
        parts += _bars(box, i, one)
        if i % every == 0:
            parts.append(text(box.x(i + 0.5), HISTOGRAM_HEIGHT - 28, _span(one), "label", "middle"))
    parts += box.titles("tokens of an answer", "answers")
    return picture(parts, HISTOGRAM_HEIGHT, "answers by their length, planned and as it was")


def _bars(box: Box, i: int, one: Mapping[str, Any]) -> Iterator[str]:
    wide = (box.x(1) - box.x(0)) * 0.36
    for kind, style, left in (("planned", "tokens", 0.12), ("answered", "real", 0.52)):
        top, said = box.y(one[kind]), f"{count(one[kind], 'answer')} {kind} with {_span(one)} tokens"
        if one[kind]:
            yield box_of(box.x(i + left), top, wide, box.y(0.0) - top, f"bar {style}", said)


def _span(one: Mapping[str, Any]) -> str:
    low, high = one["low"], one["high"]
    return short(low) if low == high else f"{short(low)}–{short(high)}"

"""The lab's page: what techniques do to answers against what they save, as pictures and tables, in one file of HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from markupsafe import Markup, escape

from umbel.cost.damage import MeasuredTechnique
from umbel.lab.session import LabRecord
from umbel.lab.table import NOTE, SUMMARY, markdown, summary_rows, task_head, task_rows, worst_text
from umbel.plan.explain.page import Picture, render
from umbel.plan.explain.replicas import Grid
from umbel.plan.explain.svg import LEFT, Box, picture, text

STYLES = ("kv", "tokens", "running", "real")
HEIGHT = 320
LINE = 14  # pixels between labels
Figure = Callable[[MeasuredTechnique], float]


def lab_page(record: LabRecord) -> str:
    """The page of a session."""
    found = record.techniques
    grids: list[Grid] = [
        ("Techniques", SUMMARY, summary_rows(found), [NOTE]),
        ("Right answers by task", task_head(found), task_rows(found), []),
    ]
    notes = [f"{name}: not measured: {why}" for name, why in record.failures.items()]
    about = {name: str(value) for name, value in record.about.items()}
    shown = {"about": about, "notes": notes}
    title = f"What lossy techniques do to {record.about['model']}"
    return render(title, _tiles(found), _pictures(found), shown, markdown(record), grids=grids)


def _tiles(found: Sequence[MeasuredTechnique]) -> list[tuple[str, str, str]]:
    """What there is to say first."""
    tiles = [("techniques", f"{len(found)}", "measured, each with its budget")]
    if found:
        gentle, fast = min(found, key=lambda one: one.share_lost), min(found, key=lambda one: one.seconds_share)
        tiles.append(("loses least", f"{gentle.share_lost:.1%}", gentle.name))
        loses = f"of dense's seconds: {fast.name}, loses {worst_text(fast)}"
        tiles.append(("fastest", f"{fast.seconds_share:.0%}", loses))
    return tiles


def _pictures(found: Sequence[MeasuredTechnique]) -> list[Picture]:
    lost: Figure = lambda one: 100 * one.share_lost  # noqa: E731
    named = [("seconds", "of dense's seconds", lambda one: 100 * one.seconds_share, found)]
    picks = [one for one in found if one.keys_share < 1]
    if picks:
        named.append(("keys read", "of the keys", lambda one: 100 * one.keys_share, picks))
    small = [one for one in found if min(one.kv_share, one.weight_share) < 1]
    if small:
        named.append(("bytes", "of dense's bytes of KV and weights", _bytes, small))
    pictures = [
        Picture(
            f"Answers lost against {name}",
            f"A point is a technique; down and to the left is better. Across: per cent {of}. Upwards: per cent of "
            "dense's right answers that are lost, in the task that loses most. Budgets of one technique are joined.",
            trade_off(shown, across, lost, f"{name}, per cent {of}", "lost, per cent"),
        )
        for name, of, across, shown in named
    ]
    if any(one.kept_mass is not None for one in picks):
        pictures.append(_mass(picks))
    return pictures


def _mass(picks: Sequence[MeasuredTechnique]) -> Picture:
    kept: Figure = lambda one: 100 * (1.0 if one.kept_mass is None else one.kept_mass)  # noqa: E731
    note = "The share of dense attention's softmax on keys that are read, of rows that do not read all: up and to the "
    note += "left is better. It says nothing of which answers are lost."
    drawn = trade_off(picks, lambda one: 100 * one.keys_share, kept, "keys read, per cent", "mass kept, per cent")
    return Picture("Softmax kept against keys read", note, drawn)


def _bytes(one: MeasuredTechnique) -> float:
    return 100 * min(one.kv_share, one.weight_share)


def trade_off(found: Sequence[MeasuredTechnique], across: Figure, up: Figure, x_label: str, y_label: str) -> Markup:
    """Techniques as points with their names; those that differ in a setting are joined."""
    longest, highest = max([100.0, *map(across, found)]), max(map(up, found))
    box = Box(longest * 1.02, highest * 1.12 or 1.0, HEIGHT)
    groups: dict[str, list[MeasuredTechnique]] = {}
    for one in found:
        groups.setdefault(one.name.partition(":")[0], []).append(one)
    parts, taken = [*box.grid(x_label, y_label)], list[tuple[float, float, float]]()
    for number, group in enumerate(groups.values()):
        points = sorted((box.x(across(one)), box.y(up(one)), one.name) for one in group)
        parts += _group(points, STYLES[number % len(STYLES)], taken)
    return picture(parts, HEIGHT, f"{y_label} against {x_label}")


def _group(
    points: Sequence[tuple[float, float, str]], style: str, taken: list[tuple[float, float, float]]
) -> Iterator[str]:
    """The points of a technique, the line through them, and their names where none stands yet."""
    if len(points) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
        yield f'<polyline class="line {style}" points="{path}"/>'
    for number, (x, y, name) in enumerate(points):
        yield f'<circle class="key {style}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{escape(name)}</title></circle>'
        plain, _, setting = name.partition(":")
        shown = setting.rpartition("=")[2]  # the others of a line go by their budget alone
        label = name if not shown else shown if number else f"{plain} {shown}"
        wide = 6.4 * len(label)
        left = x + 9 if x + 9 + wide < LEFT + 620 else x - 9 - wide
        low = _free(left, left + wide, y - 6, -LINE, taken)
        if low < LINE:  # above the picture: below the point, then
            low = _free(left, left + wide, y + LINE, LINE, taken)
        taken.append((left, left + wide, low))
        yield text(left, low, label, "axis", "start")


def _free(left: float, end: float, low: float, step: float, taken: Sequence[tuple[float, float, float]]) -> float:
    """Where a name fits, from `low` on by `step`, beside those that stand there already."""
    while any(abs(low - other) < LINE and left < right and begin < end for begin, right, other in taken):
        low += step
    return low

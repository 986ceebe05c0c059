"""Adds up the parts of a job: what their plans expected, what of it was due when they stopped, and what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from umbel.ir.plan import Curve
from umbel.jobs.report.lengths import added
from umbel.jobs.report.shares import added_shares, due_shares, joined_shares
from umbel.plan.explain.record import curve_of_json, curve_to_json

MAX_LINES = 400  # of the tree of all parts; further ones are summed up
MAX_STRETCHES = 512
HIGHEST = frozenset({"kv_peak_tokens"})  # of parts; everything else adds up
FIGURES = (
    "rows",
    "prompt_tokens",
    "computed_prompt_tokens",
    "output_tokens",
    "steps",
    "kv_peak_tokens",
    "seconds",
    "seconds_low",
    "seconds_high",
    "saved_seconds",
)
LINE_SUMS = ("rows", "tokens", "branches", "saved_tokens", "saved_seconds", "output_tokens")
DONE_SUMS = ("done", "failed", "cut", "output", "expected")
_PLAN_ONLY = ("chunk", "kv_tokens", "page_size", "decisions", "refusals", "twins", "duplicate_rows", "exact", "lossy")

Sums = dict[str, Any]


def fold(record: Mapping[str, Any] | None, live: Mapping[str, Any] | None, *, closing: bool = False) -> Sums:
    """The sums over all parts: `planned`, `due` (expected of the rows or steps that were done) and `actual` figures.

    `record` and `live` are the store's records "plan" and "live". With `closing` the last part is over: when it was cut
    short, its rest will be planned again, and only what was due counts as planned.
    """
    before: Sums = dict((record or {}).get("closed") or {})
    plan, part = (record or {}).get("open"), (live or {}).get("open")
    if not plan or not part or (closing and not part["stats"].get("steps", 0) and not sum(part["lines"]["done"])):
        return before
    done = sum(part["lines"]["done"])
    whole = done >= plan["rows"]
    planned = _planned(plan)
    due = planned if whole else _due(plan, part, done)
    if closing:
        planned = due
    return {
        "parts": before.get("parts", 0) + plan.get("parts", 1),
        "cut_short": before.get("cut_short", 0) + (not whole),
        "planned": _add(before.get("planned"), planned),
        "due": _add(before.get("due"), due),
        "actual": _add(before.get("actual"), _actual(part, done)),
        "lines": _add_lines(before.get("lines", []), _lines(plan, part, shrink=closing and not whole)),
        "curve": _append(
            before.get("curve"), plan["curve"] if whole or not closing else until(plan["curve"], due["steps"])
        ),
        "course": _continue(before.get("course", []), part["course"]),
        "lengths": added(before.get("lengths"), part["lengths"]),
        "reasons": _add(before.get("reasons"), part["reasons"]),
        "notes": list(dict.fromkeys([*before.get("notes", []), *plan["notes"]])),
        "shares": added_shares(before.get("shares", []), due_shares(plan, _planned(plan), due)),
        "tallies": list((live or {}).get("replicas", [])),
        **{name: plan[name] for name in _PLAN_ONLY},
    }


def joined_plans(plans: Sequence[Mapping[str, Any]]) -> Sums:
    """The records of plans whose parts are open together as one record: one after the other, with what is chosen by the
    last. Empty where there is none."""
    if len(plans) < 2:
        return dict(plans[0]) if plans else {}
    seconds = [plan["seconds"] for plan in plans]
    tree: list[Sums] = []
    curve: dict[str, list[float]] = {}
    for plan in plans:
        below = len(tree)
        tree += [{**line, "parent": line["parent"] + below if line["parent"] >= 0 else -1} for line in plan["tree"]]
        curve = _append(curve, plan["curve"])
    return {
        **{name: plans[-1][name] for name in _PLAN_ONLY},
        **{name: _over(name, [plan[name] for plan in plans]) for name in FIGURES if not name.startswith("seconds")},
        "seconds": {name: sum(one[name] for one in seconds) for name in seconds[0]},
        "tree": tree,
        "curve": curve,
        **joined_shares(plans),
        "notes": list(dict.fromkeys(note for plan in plans for note in plan["notes"])),
        "parts": len(plans),
    }


def _over(name: str, values: Sequence[float]) -> float:
    return max(values) if name in HIGHEST else sum(values)


def _planned(plan: Mapping[str, Any]) -> Sums:
    """The figures of the plan."""
    seconds = plan["seconds"]
    own = {"seconds": seconds["expected"], "seconds_low": seconds["low"], "seconds_high": seconds["high"]}
    return {name: own[name] if name in own else plan[name] for name in FIGURES}


def _due(plan: Mapping[str, Any], part: Mapping[str, Any], done: int) -> Sums:
    """The figures that the plan expected up to the step at which its run stopped."""
    planned, steps = _planned(plan), min(part["stats"].get("steps", 0), plan["steps"])
    time, tokens, drawn, peak = shares_at(curve_of_json(plan["curve"]), steps, plan["steps"])
    due = {name: planned[name] * time for name in ("seconds", "seconds_low", "seconds_high")}
    return {
        **due,
        "rows": done,
        "prompt_tokens": part["prompt_tokens"],
        "computed_prompt_tokens": round(planned["computed_prompt_tokens"] * tokens),
        "output_tokens": round(planned["output_tokens"] * drawn) if steps else part["expected_output_tokens"],
        "steps": steps,
        "kv_peak_tokens": planned["kv_peak_tokens"] if peak is None else round(peak),
        "saved_seconds": planned["saved_seconds"] * tokens,
    }


def shares_at(curve: Curve, steps: float, all_steps: float) -> tuple[float, float, float, float | None]:
    """Shares of seconds, prompt tokens and output tokens that are due after so many steps, and the KV peak until then.

    Rows that are done would be the wrong measure: those are the ones with short answers.
    """
    if not len(curve.steps):
        share = steps / all_steps if all_steps else 1.0
        return share, share, share, None
    at, width = np.append(0.0, curve.steps), np.diff(curve.steps, prepend=0.0)
    prompt = np.append(0.0, np.cumsum(np.maximum(curve.tokens - curve.running, 0.0) * width))
    drawn = np.append(0.0, np.cumsum(curve.running * width))
    columns = (np.append(0.0, curve.seconds), prompt, drawn)
    time, tokens, output = (float(np.interp(steps, at, v) / v[-1]) if v[-1] else 1.0 for v in columns)
    begun = max(int(np.searchsorted(curve.steps, steps, "left")) + 1, 1)
    return time, tokens, output, float(curve.kv_tokens[:begun].max())


def _actual(part: Mapping[str, Any], done: int) -> Sums:
    names = ("seconds", "starved_seconds", "prompt_tokens")
    lines = part["lines"]
    rows = {"rows": done, "failed": sum(lines["failed"]), "cut": sum(lines["cut"])}
    return {**part["stats"], **rows, **{name: part[name] for name in names}}


def _add(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> Sums:
    if not one:
        return dict(other)
    names = [*one, *(name for name in other if name not in one)]
    pairs = {name: (one.get(name, 0), other.get(name, 0)) for name in names}
    return {name: _over(name, pair) for name, pair in pairs.items()}


def _lines(plan: Mapping[str, Any], part: Mapping[str, Any], *, shrink: bool) -> list[Sums]:
    """The tree with what happened to each line's rows and to all below it; with `shrink`, only of the rows that are
    done."""
    tree = plan["tree"]
    sums = {name: list(part["lines"][name]) for name in DONE_SUMS}
    output = [line["output_tokens"] for line in tree]
    for i in range(len(tree) - 1, -1, -1):  # children stand behind their parents
        above = tree[i]["parent"]
        if above >= 0:
            output[above] += output[i]
            for column in sums.values():
                column[above] += column[i]
    lines = []
    for i, line in enumerate(tree):
        own = {**line, "output_tokens": output[i], **{name: column[i] for name, column in sums.items()}}
        if shrink and line["rows"]:
            own |= _scaled(own, own["done"] / line["rows"]) | {"rows": own["done"], "output_tokens": own["expected"]}
        lines.append(own)
    return lines


def _scaled(line: Mapping[str, Any], share: float) -> Sums:
    """The part of a line that is not planned a second time; a run that has begun is computed, so its tokens stay."""
    saved = {"saved_tokens": round(line["saved_tokens"] * share), "saved_seconds": line["saved_seconds"] * share}
    if line["kind"] == "run":
        return {**saved, "tokens": line["tokens"] if share else 0}
    return {**saved, "tokens": round(line["tokens"] * share), "branches": round(line["branches"] * share)}


def _add_lines(one: list[Sums], other: list[Sums]) -> list[Sums]:
    """The lines of both trees: those of the same key are one, and a new line stands below the new place of its parent.

    Parts may fork differently: a root of one part stands below the shorter beginning that another part has for it,
    which then counts the rows of both.
    """
    lines = [dict(line) for line in one]
    at = {line["key"]: i for i, line in enumerate(lines)}
    became: dict[int, int] = {-1: -1}
    for i, line in enumerate(other):
        parent, key = became[line["parent"]], line["key"]
        if key not in at and len(lines) >= MAX_LINES:
            key = f"rest {lines[parent]['key'].partition(' ')[2] if parent >= 0 else ''}"
        if key not in at:
            became[i] = at[key] = len(lines)
            lines.append({**line, "key": key, "parent": parent})
            continue
        became[i] = known = at[key]
        if lines[known]["parent"] < 0 <= parent != known:
            lines[known]["parent"] = parent
            _count_above(lines, known, lines[known])
        elif parent < 0:
            _count_above(lines, known, line)
        _join(lines[known], line)
    return _in_order(lines)


def _count_above(lines: list[Sums], child: int, counted: Mapping[str, Any]) -> None:
    """Add rows to all lines above a line."""
    above = lines[child]["parent"]
    while above >= 0:
        for name in ("rows", "output_tokens", *DONE_SUMS):
            lines[above][name] += counted[name]
        above = lines[above]["parent"]


def _in_order(lines: list[Sums]) -> list[Sums]:
    """The same tree with parents before their children."""
    depth = [0] * len(lines)
    for i in range(len(lines)):
        above = lines[i]["parent"]
        while above >= 0:
            depth[i] += 1
            above = lines[above]["parent"]
    order = sorted(range(len(lines)), key=depth.__getitem__)
    place = {-1: -1} | {old: new for new, old in enumerate(order)}
    return [{**lines[old], "parent": place[lines[old]["parent"]]} for old in order]


def _join(line: Sums, other: Mapping[str, Any]) -> None:
    """Add another part's figures; a run's tokens are computed again in each part."""
    for name in (*LINE_SUMS, *DONE_SUMS):
        line[name] += other[name]
    if line["kind"] == "run":
        line["branches"] = 1
    elif "rest" in (line["kind"], other["kind"]):
        line["kind"] = "rest"


def until(curve: Mapping[str, list[float]], steps: float) -> dict[str, list[float]]:
    """A predicted curve up to a step, in the middle of a stretch if need be."""
    ends = curve["steps"]
    last = next((i for i, end in enumerate(ends) if end >= steps), len(ends) - 1)
    found = {name: column[: last + 1] for name, column in curve.items()}
    if found["steps"] and ends[last] > steps:
        seconds = float(np.interp(steps, [0.0, *ends], [0.0, *curve["seconds"]]))
        found |= {"steps": [*ends[:last], steps], "seconds": [*curve["seconds"][:last], seconds]}
    return found


def _append(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> dict[str, list[float]]:
    """Two predicted curves one after the other, thinned to a bounded number of stretches."""
    if not one or not one["steps"]:
        return dict(other)
    steps, seconds = one["steps"][-1], one["seconds"][-1]
    joined = {name: [*one[name], *other[name]] for name in one}
    joined["steps"] = [*one["steps"], *(v + steps for v in other["steps"])]
    joined["seconds"] = [*one["seconds"], *(v + seconds for v in other["seconds"])]
    curve = curve_of_json(joined)
    while len(curve.steps) > MAX_STRETCHES:
        curve = halved(curve)
    return curve_to_json(curve)


def halved(curve: Curve) -> Curve:
    """The curve with stretches merged in pairs: means by steps, and the higher KV."""
    n = len(curve.steps)
    starts = np.arange(0, n, 2)
    ends = np.minimum(starts + 1, n - 1)
    width = np.maximum(np.diff(curve.steps, prepend=0.0), 1e-12)
    total = np.add.reduceat(width, starts)
    tokens, running = (np.add.reduceat(v * width, starts) / total for v in (curve.tokens, curve.running))
    kv = np.maximum.reduceat(curve.kv_tokens, starts)
    return Curve(curve.steps[ends], curve.seconds[ends], tokens, running, kv)


def _continue(one: list[list[float]], other: list[list[float]]) -> list[list[float]]:
    """Two measured courses one after the other: of each point seconds, steps, tokens, and KV tokens summed over
    steps."""
    begin = one[-1] if one else [0, 0, 0, 0]
    joined = [*one, *([a + b for a, b in zip(begin, point, strict=True)] for point in other)]
    while len(joined) > MAX_STRETCHES:
        joined = joined[1::2]
    return joined

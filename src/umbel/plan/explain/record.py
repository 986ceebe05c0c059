"""A plan as one JSON object, which `umbel plan --json` prints, a job store keeps, and every page is made from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.ir.plan import Curve, Decision, Plan, Refusal
from umbel.plan.deal.shared_plan import SharedPlan
from umbel.plan.explain.replicas import replicas_of
from umbel.plan.explain.tree import Line, shown_lines

DIGITS = 5  # of the curve's figures: a picture has no more


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as a JSON object: whether it is exact, what is lossy, notes; estimates under the names of
    ir.plan.Estimates; then decisions, refusals, levels, tree and curve.

    `seconds` is an object of `low`, `expected` and `high`, `output_range` one of `low` and `high`. `twins` counts the
    rows that another row answers. `tree` lists lines as in tree.Line, with `saved_seconds`, a parent before its
    children; `curve` holds columns as in ir.plan.Curve. `replicas`, where there are several, is as `replicas_of` says.
    """
    e = plan.estimates
    low, expected, high = e.seconds
    twins = int((plan.same_as != np.arange(len(plan.same_as))).sum())
    return {
        "exact": plan.exact,
        "lossy": list(plan.lossy),
        "notes": list(plan.notes),
        "rows": e.rows,
        "samples": e.samples,
        "duplicate_rows": e.duplicate_rows,
        "twins": twins,
        "prompt_tokens": e.prompt_tokens,
        "computed_prompt_tokens": e.computed_prompt_tokens,
        "saved_prompt_tokens": e.saved_prompt_tokens,
        "output_tokens": e.output_tokens,
        "output_range": {"low": e.output_range[0], "high": e.output_range[1]},
        "steps": e.steps,
        "chunk": plan.chunk,
        "kv_tokens": plan.kv_tokens,
        "kv_peak_tokens": e.kv_peak_tokens,
        "page_size": plan.page_size,
        "seconds": {"low": low, "expected": expected, "high": high},
        "saved_seconds": e.saved_seconds,
        "batches": _batches(e.curve, max(e.samples - twins, 1)),
        "decisions": [_decision(d) for d in plan.decisions],
        "refusals": [_refusal(r) for r in plan.refusals],
        "levels": [{"nodes": v.nodes, "rows": v.rows, "tokens": v.tokens, "saved": v.saved} for v in e.levels],
        "tree": _tree(plan),
        "curve": curve_to_json(e.curve),
        **({"replicas": replicas_of(plan)} if isinstance(plan, SharedPlan) else {}),
    }


def _decision(d: Decision) -> dict[str, Any]:
    found = {"name": d.name, "value": d.value, "reason": d.reason}
    return {**found, "facts": dict(d.facts), "alternatives": dict(d.alternatives)}


def _refusal(r: Refusal) -> dict[str, Any]:
    return {"technique": r.technique, "seconds": r.seconds, "reason": r.reason, "facts": dict(r.facts)}


def curve_to_json(curve: Curve) -> dict[str, list[float]]:
    """The columns of a curve, rounded to what pictures need."""
    names = ("steps", "seconds", "tokens", "running", "kv_tokens")
    return {name: [_rounded(v) for v in getattr(curve, name).tolist()] for name in names}


def curve_of_json(found: dict[str, list[float]]) -> Curve:
    """The curve that `curve_to_json` wrote."""
    columns = (found["steps"], found["seconds"], found["tokens"], found["running"], found["kv_tokens"])
    return Curve(*(np.array(column, np.float64) for column in columns))


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _batches(curve: Curve, samples: int) -> dict[str, float]:
    """The mean step: tokens computed, samples running; and the most samples at a time."""
    steps = np.diff(curve.steps, prepend=0.0)
    total = float(steps.sum())
    if not total:
        return {"tokens": 0.0, "running": 0.0, "running_peak": 0.0}

    def mean(values: NDArray[np.float64]) -> float:
        return round(float((values * steps).sum()) / total, 1)

    return {
        "tokens": mean(curve.tokens),
        "running": mean(curve.running),
        "running_peak": min(round(float(curve.running.max()), 1), samples),
    }


def _tree(plan: Plan) -> list[dict[str, Any]]:
    """The tree's lines; the seconds saved are divided among them by the tokens that each saves."""
    saved = plan.estimates.saved_prompt_tokens
    per_token = plan.estimates.saved_seconds / saved if saved else 0.0
    return [_line(line, per_token) for line in shown_lines(plan)]


def _line(line: Line, seconds_per_token: float) -> dict[str, Any]:
    return {
        "kind": line.kind,
        "parent": line.parent,
        "end": line.end,
        "tokens": line.tokens,
        "rows": line.rows,
        "branches": line.branches,
        "saved_tokens": line.saved,
        "saved_seconds": line.saved * seconds_per_token,
    }

"""Which rows fit a budget: rows ordered so that most are answered in it, groups together, each with its share of
time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.ir.budget import Budget
from umbel.ir.distinct import Distinct
from umbel.ir.forest import Forest
from umbel.ir.plan import Curve, Plan
from umbel.ir.workload import Workload

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fit:
    """Rows in the order in which most are answered soonest, and what each is expected to take.

    `order`: the rows.
    `seconds`, `tokens`: `[rows in order]`, expected seconds and output tokens.
    `limits`: `[rows in order]`, the most tokens that it may generate.
    """

    order: Ints
    seconds: Floats
    tokens: Ints
    limits: Ints

    def rows(self, budget: Budget) -> int:
        """The number of rows that are expected to be answered within the budget."""
        count = len(self.order)
        if budget.seconds is not None:
            count = min(count, int(np.searchsorted(np.cumsum(self.seconds), budget.seconds, "right")))
        if budget.output_tokens is not None:
            count = min(count, int(np.searchsorted(np.cumsum(self.tokens), budget.output_tokens, "right")))
        return count


def fit(plan: Plan, workload: Workload, context: int, *, tokens_only: bool = False) -> Fit:
    """Divide the plan's expected seconds among its rows, and order groups by their cost per row.

    A group is the rows below one run; each of them pays the same part of what they share. Rows that another row answers
    cost nothing and come right after it. `context` is the most tokens of a row; with `tokens_only` each row counts by
    the most it may generate, as time does not matter.
    """
    samples = Distinct.of(workload.params).column(lambda p: p.n)
    runs = plan.same_as == np.arange(len(workload))
    expected = samples * plan.lengths * runs
    limits = samples * workload.longest_answers(context)
    seconds = _weighted(plan, _own_share(plan.forest) * runs, expected)
    order = _cheapest_groups(plan, limits if tokens_only else seconds, apart=tokens_only)
    return Fit(order, seconds[order], expected[order], limits[order])


def fits_of(plan: Plan, workload: Workload, context: int, budget: Budget) -> dict[str, Any]:
    """The rows that are expected to fit a budget, for JSON: `rows` of `of_rows`, their `output_tokens` and `seconds` to
    run."""
    found = fit(plan, workload, context, tokens_only=budget.seconds is None)
    rows = found.rows(budget)
    return {
        "deadline_seconds": budget.seconds,
        "max_output_tokens_total": budget.output_tokens,
        "rows": rows,
        "of_rows": len(found.order),
        "output_tokens": int(found.tokens[:rows].sum()),
        "seconds": float(found.seconds[:rows].sum()),
    }


def fits_text(fits: Mapping[str, Any]) -> str:
    """The result of `fits_of` in words."""
    limits = [] if fits["deadline_seconds"] is None else [f"{fits['deadline_seconds']:,g} s of running"]
    limits += [] if fits["max_output_tokens_total"] is None else [f"{fits['max_output_tokens_total']:,} tokens out"]
    are = "row is" if fits["of_rows"] == 1 else "rows are"
    expected = f"{fits['rows']:,} of {fits['of_rows']:,} {are} expected to fit"
    return f"{' and '.join(limits)}: {expected}, with {fits['output_tokens']:,} tokens out"


def _own_share(forest: Forest) -> Floats:
    """The tokens of each row's path (`[rows]`), every node divided among the rows below it."""
    share = (forest.end - forest.start) / np.maximum(forest.rows_below, 1)
    ended = np.bincount(forest.subtree_end, share, forest.n_nodes + 1)[: forest.n_nodes]
    path = np.cumsum(share) - np.cumsum(ended)  # node j lies above all from itself to the end of its subtree
    return np.maximum(path[forest.leaf], 0.0)


def _weighted(plan: Plan, prompt: Floats, output: Ints) -> Floats:
    """Each row's part of the plan's expected seconds (`[rows]`), at the plan's costs of a prompt and of an output
    token."""
    prompt_cost, output_cost = token_prices(plan.estimates.curve)
    cost = prompt * prompt_cost + output * output_cost
    total = float(cost.sum())
    return cost * (plan.estimates.seconds[1] / total) if total else cost


def token_prices(curve: Curve) -> tuple[float, float]:
    """Relative cost of a token computed and of one drawn, by least squares over the stretches of the plan's walk."""
    if len(curve.steps) < 2:
        return 1.0, 1.0
    steps, seconds = np.diff(curve.steps, prepend=0.0), np.diff(curve.seconds, prepend=0.0)
    terms = np.stack([curve.tokens * steps, curve.running * steps], axis=1)
    found = np.linalg.lstsq(terms, seconds, rcond=None)[0]
    token, drawn = found.tolist()
    if not 0.0 < token < np.inf:  # too few stretches, or too much alike, to tell one from the other
        return 1.0, 1.0
    return token, token + max(0.0, drawn)  # a token drawn is computed as well


def _cheapest_groups(plan: Plan, cost: Floats | Ints, *, apart: bool) -> Ints:
    """The rows, groups by their mean cost a row, inside a group as planned; twins stay with the row they copy.

    With `apart` each row is a group, its twins left with it.
    """
    forest, rows = plan.forest, np.arange(len(cost))
    leaf = forest.leaf[plan.same_as]
    above = forest.parent[leaf]
    group = plan.same_as if apart else np.where((forest.rows_below[leaf] > 1) | (above < 0), leaf, above)
    _, group = np.unique(group, return_inverse=True)
    mean = np.bincount(group, cost) / np.bincount(group)
    place = np.empty(len(cost), np.int64)
    place[plan.order] = np.arange(len(plan.order))
    place = place[plan.same_as]
    return np.lexsort((rows, place, group, mean[group]))

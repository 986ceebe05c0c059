"""Prints a plan as a database does: every decision with its reason, the forest as a tree, time as an interval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest
from umbel.ir.plan import Decision, Plan

Ints = NDArray[np.int64]

MAX_BRANCHES = 5  # branches printed below one node; the rest is summed up in one line
MAX_DEPTH = 4
MAX_LEVELS = 8
WORTH = 0.02  # branches that save less than this share of the whole saving are summed up


def explain(plan: Plan) -> str:
    """The plan as text, a few dozen lines whatever its size; ends with a newline."""
    e = plan.estimates
    low, expected, high = (duration(s) for s in e.seconds)
    tokens = f"{e.prompt_tokens:,} prompt tokens in, about {e.output_tokens:,} out"
    lines = [
        f"PLAN  {_count(e.rows, 'row')}, {tokens}    all exact",
        _line("time", f"{expected} ({low} to {high}) in {_count(e.steps, 'step')}"),
        _line("compute", f"{e.computed_prompt_tokens:,} prompt tokens; {_saving(plan)}"),
        _line("kv peak", f"{e.kv_peak_tokens:,} tokens of a pool of {plan.kv_tokens:,}"),
        _line("duplicates", f"{_count(e.duplicate_rows, 'row')} like an earlier one" if e.duplicate_rows else "none"),
        "decisions",
        *(_decision(d) for d in plan.decisions),
        *_levels(plan),
        *_tree(plan.forest),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as one JSON object: estimates under the names of ir.plan.Estimates, then decisions and levels."""
    e = plan.estimates
    low, expected, high = e.seconds
    return {
        "rows": e.rows,
        "samples": e.samples,
        "duplicate_rows": e.duplicate_rows,
        "prompt_tokens": e.prompt_tokens,
        "computed_prompt_tokens": e.computed_prompt_tokens,
        "saved_prompt_tokens": e.saved_prompt_tokens,
        "output_tokens": e.output_tokens,
        "steps": e.steps,
        "chunk": plan.chunk,
        "kv_tokens": plan.kv_tokens,
        "kv_peak_tokens": e.kv_peak_tokens,
        "page_size": plan.page_size,
        "seconds": {"low": low, "expected": expected, "high": high},
        "saved_seconds": e.saved_seconds,
        "levels": [{"nodes": v.nodes, "rows": v.rows, "tokens": v.tokens, "saved": v.saved} for v in e.levels],
        "decisions": [
            {"name": d.name, "value": d.value, "reason": d.reason, "alternatives": dict(d.alternatives)}
            for d in plan.decisions
        ],
    }


def duration(seconds: float) -> str:
    """A time for people: three digits below a minute, then the two largest units."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _line(name: str, text: str) -> str:
    return f"  {name:<14}{text}"


def _saving(plan: Plan) -> str:
    e = plan.estimates
    if not e.saved_prompt_tokens:
        return "nothing is shared"
    share = e.saved_prompt_tokens / e.prompt_tokens
    return f"sharing saves {e.saved_prompt_tokens:,} ({share:.1%}), about {duration(e.saved_seconds)}"


def _decision(decision: Decision) -> str:
    value = f"{decision.value:,}" if isinstance(decision.value, int) else decision.value
    text = f"{value}: {decision.reason}"
    if decision.alternatives:
        text += "; instead " + ", ".join(f"{name} {duration(s)}" for name, s in decision.alternatives)
    return _line(decision.name, text)


def _levels(plan: Plan) -> Iterator[str]:
    levels = plan.estimates.levels
    yield f"{'levels':<8}{'runs':>12}{'rows':>12}{'tokens':>14}{'saved':>14}"
    for depth, level in enumerate(levels[:MAX_LEVELS]):
        yield f"  {depth:<6}{level.nodes:>12,}{level.rows:>12,}{level.tokens:>14,}{level.saved:>14,}"
    rest = levels[MAX_LEVELS:]
    if rest:
        nodes, tokens, saved = (sum(v) for v in zip(*((r.nodes, r.tokens, r.saved) for r in rest), strict=True))
        yield f"  {'deeper':<6}{nodes:>12,}{rest[0].rows:>12,}{tokens:>14,}{saved:>14,}"


def _tree(forest: Forest) -> Iterator[str]:
    """The branches that save most, in plan order; lesser ones are summed up."""
    yield "forest"
    yield from _branches(_Tree.of(forest), -1, "", 0)


@dataclass(frozen=True, slots=True)
class _Tree:
    """A forest with figures per node: `size` in tokens, and of the whole subtree `tokens` and `saved` tokens."""

    forest: Forest
    size: Ints
    tokens: Ints
    saved: Ints
    total: int

    @classmethod
    def of(cls, forest: Forest) -> _Tree:
        """Subtrees are ranges, so running sums give their totals."""

        def below(values: Ints) -> Ints:
            total = np.concatenate(([0], np.cumsum(values)))
            return np.asarray(total[forest.subtree_end] - total[:-1])

        size = forest.end - forest.start
        saved = size * (forest.rows_below - 1)
        return cls(forest, size, below(size), below(saved), int(saved.sum()))

    def branch(self, node: int) -> str:
        """One line for a shared run."""
        rows, size = int(self.forest.rows_below[node]), int(self.size[node])
        return f"{_count(size, 'token')} x {rows:,} rows, saves {self.saved[node]:,}"

    def best(self, nodes: Ints) -> list[int]:
        """The few of these nodes that save most, in plan order."""
        worth = nodes[(self.forest.rows_below[nodes] > 1) & (self.saved[nodes] >= WORTH * self.total)]
        return [int(n) for n in np.sort(worth[np.argsort(-self.saved[worth], kind="stable")[:MAX_BRANCHES]])]

    def others(self, nodes: Ints) -> str:
        """One line for all branches that are not shown."""
        rows, tokens = int(self.forest.rows_below[nodes].sum()), int(self.tokens[nodes].sum())
        if rows == len(nodes):
            return f"{_count(rows, 'row')} of {'its' if rows == 1 else 'their'} own, {_count(tokens, 'token')}"
        branches = f"{len(nodes):,} other branch{'' if len(nodes) == 1 else 'es'}"
        return f"{branches} of {rows:,} rows, {tokens:,} tokens, saving {int(self.saved[nodes].sum()):,}"


def _branches(tree: _Tree, parent: int, indent: str, depth: int) -> Iterator[str]:
    forest = tree.forest
    kids = np.flatnonzero(forest.parent == parent)
    shown = tree.best(kids) if depth < MAX_DEPTH else []
    rest = np.setdiff1d(kids, shown)
    ends = int(forest.rows_below[parent] - forest.rows_below[kids].sum()) if parent >= 0 else 0
    lines = [(-1, f"{_count(ends, 'row')} ending here")] if ends and len(kids) else []
    lines += [(node, tree.branch(node)) for node in shown] + ([(-1, tree.others(rest))] if len(rest) else [])
    for i, (node, text) in enumerate(lines):
        last = i == len(lines) - 1
        yield f"{indent}{'└─' if last else '├─'} {text}"
        if node >= 0:
            yield from _branches(tree, node, indent + ("   " if last else "│  "), depth + 1)

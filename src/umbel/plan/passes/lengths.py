"""Predicts how long answers are: as earlier runs' answers to the same template were, or as long as rows allow.

Rows with a common beginning are a group: a template, which later runs recognise by a digest of that beginning. Walks of
the plan get lengths spread as answers are, not their mean: the longest answers are what ends a run.
"""

from __future__ import annotations

import hashlib
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from umbel.cost.lengths import LengthBook, LengthCurve
from umbel.ir.distinct import Distinct
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Decision
from umbel.plan.draft import PlanDraft

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

UNBOUNDED = 128  # output tokens assumed of a row without `max_tokens`, when no earlier run has taught better
TEMPLATE_ROWS = 20  # rows that must share a beginning before it counts as a template
TEMPLATE_TOKENS = 16  # of which it must have so many; what all chats begin with is not one
_DIGEST_TOKENS = 256  # at most, and in steps of `TEMPLATE_TOKENS`: where forks lie changes a little from run to run
_GOLDEN = (5**0.5 - 1) / 2  # multiples of it, without their whole part, lie evenly however many are taken
CONFIDENCE = 0.9  # of the interval around the expected total
_DIGEST_BYTES = 8
_SILENT = Decision("output tokens", 0, "no row writes: each is read, for a vector or for scores")


def assume_lengths(draft: PlanDraft) -> PlanDraft:
    """Expected lengths from `draft.known` where there are any, by template, else by all rows; never above the limit.

    A row without any history runs to its `max_tokens`; one without a limit is assumed to write 128 tokens, or what its
    context leaves. Where nothing was seen, the interval goes from a token to the limit.
    """
    samples, asked, certain = _asked(draft)
    none = Distinct.of(draft.workload.params).flags(lambda p: p.max_tokens == 0)
    limits = draft.workload.longest_answers(draft.spec.max_positions)
    free = (asked == 0) & ~certain
    lengths = np.where(free, np.minimum(UNBOUNDED, limits), limits)
    groups, templates = _templates(draft)
    curves = _curves(draft, groups, templates)
    everyone = draft.known.lengths.get("", LengthCurve.none()).answers
    expected, variance, bounds, learned = _learned(curves, groups, limits, everyone)
    learned &= ~certain
    spread_out = np.where(learned, _spread_out(curves, groups, limits), lengths)
    lengths = np.where(none, 0, np.where(learned, expected, lengths))
    total = int((lengths * samples).sum())
    spread = min(_half_width(np.where(learned, variance, 0.0), samples, groups, curves) / max(total, 1), 1.0)
    bounds = np.where(certain, lengths, [np.minimum(bounds[0], lengths), np.maximum(bounds[1], lengths)])
    between = output_range(samples, limits, bounds, spread * total)
    return draft.decide(
        _SILENT if len(none) and none.all() else _decision(total, between, learned, int(free.sum())),
        samples=samples,
        lengths=lengths,
        walked=spread_out,
        limits=limits,
        bounds=bounds,
        groups=groups,
        templates=templates,
        output_spread=spread,
    )


def _asked(draft: PlanDraft) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Per row: its completions, its `max_tokens` (0: none), and whether nothing but a limit can end them."""
    params = Distinct.of(draft.workload.params)
    certain = params.flags(lambda p: p.max_tokens == 0 or _certain(p))
    return (
        params.column(lambda p: p.n),
        params.column(lambda p: 0 if p.max_tokens is None else max(p.max_tokens, 1)),
        certain,
    )


def _certain(params: SamplingParams) -> bool:
    """Whether nothing but its limit can end a sample."""
    return params.ignore_eos and not params.ends_early


def _templates(draft: PlanDraft) -> tuple[Ints, tuple[str, ...]]:
    """The number of each row's template, and their names; number 0, "", is for rows without one."""
    forest, load = draft.forest, draft.workload
    wide = np.append((forest.rows_below >= TEMPLATE_ROWS) & (forest.end >= TEMPLATE_TOKENS), False)
    heads = np.flatnonzero(wide[:-1] & ~wide[forest.parent])  # parent -1 finds the last entry
    names: dict[str, int] = {"": 0}
    number = np.zeros(len(heads), np.int64)
    for place, head in enumerate(heads.tolist()):
        n_tokens = min(int(forest.end[head]) // TEMPLATE_TOKENS * TEMPLATE_TOKENS, _DIGEST_TOKENS)
        run = load.prompt(int(forest.source[head]))[:n_tokens]
        digest = hashlib.blake2b(run.astype("<i4").tobytes(), digest_size=_DIGEST_BYTES).hexdigest()
        number[place] = names.setdefault(digest, len(names))
    if not len(heads):
        return np.zeros(len(load), np.int64), tuple(names)
    at = np.maximum(np.searchsorted(heads, forest.leaf, "right") - 1, 0)
    inside = (forest.leaf >= heads[at]) & (forest.leaf < forest.subtree_end[heads[at]])
    return np.where(inside, number[at], 0), tuple(names)


def _curves(draft: PlanDraft, groups: Ints, templates: tuple[str, ...]) -> list[LengthCurve]:
    """The curve of each template (`[templates]`), as the scheduler will see it."""
    book = LengthBook.of(groups, templates, draft.known.lengths)
    return [book.curve(group) for group in range(len(templates))] if draft.known.lengths else []


def _learned(
    curves: list[LengthCurve], groups: Ints, limits: Ints, everyone: float
) -> tuple[Ints, Floats, Floats, NDArray[np.bool_]]:
    """For each row: the expected length, its variance and bounds by its curve, and whether there is any history.

    The bounds (`[2, rows]`) are as in LengthCurve.bounds, of a curve that leans on `everyone`, so many answers; without
    history, a single token and the limit.
    """
    expected, variance = np.ones(len(groups), np.int64), np.zeros(len(groups))
    bounds, learned = np.stack([np.ones(len(groups)), limits]), np.zeros(len(groups), bool)
    order = np.argsort(groups, kind="stable")
    edges = np.searchsorted(groups[order], np.arange(len(curves) + 1))
    for group, curve in enumerate(curves):
        rows = order[edges[group] : edges[group + 1]]
        if curve.answers and len(rows):
            expected[rows] = np.clip(np.rint(curve.mean(limits[rows])), 1, limits[rows])
            variance[rows] = curve.variance(np.minimum(limits[rows], curve.longest))  # beyond it, the bounds
            bounds[:, rows] = np.clip(curve.bounds(limits[rows], max(curve.answers, everyone)), 1, limits[rows])
            learned[rows] = True
    return expected, variance, bounds, learned


def _spread_out(curves: list[LengthCurve], groups: Ints, limits: Ints) -> Ints:
    """A length for each row, so that those of a group are spread as its curve is."""
    lengths = np.ones(len(groups), np.int64)
    order = np.argsort(groups, kind="stable")
    edges = np.searchsorted(groups[order], np.arange(len(curves) + 1))
    for group, curve in enumerate(curves):
        rows = order[edges[group] : edges[group + 1]]
        if curve.answers and len(rows):
            shares = np.arange(1.0, len(rows) + 1.0) * _GOLDEN % 1.0
            lengths[rows] = curve.quantile(np.asarray(shares, np.float64), limits[rows])
    return lengths


def _half_width(variance: Floats, samples: Ints, groups: Ints, curves: list[LengthCurve]) -> float:
    """Half the interval of the total: samples differ, and a curve of few answers is wrong for its whole group."""
    single = float((variance * samples).sum())
    answers = np.array([max(curve.answers, 1.0) for curve in curves])
    together = np.bincount(groups, np.sqrt(variance) * samples, len(answers))[: len(answers)] / np.sqrt(answers)
    return NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * float(np.sqrt(single + (together**2).sum()))


def output_range(samples: Ints, limits: Ints, bounds: Floats, half: float) -> tuple[int, int]:
    """The interval of the total of all answers: `half` below and above the totals of their `bounds` (`[2, rows]`), but
    no shorter than a token each and no longer than allowed."""
    low, high = (bounds * samples).sum(1).tolist()
    least = int((samples * np.minimum(bounds[0], 1)).sum())
    most = int((samples * np.where(bounds[1] > 0, limits, 0)).sum())
    return max(int(low - half), least), min(int(np.ceil(high + half)), most)


def _decision(total: int, between: tuple[int, int], learned: NDArray[np.bool_], unbounded: int) -> Decision:
    rows = int(learned.sum())
    if not rows:
        return _without_history(total, unbounded)
    facts = {"low": between[0], "high": between[1], "rows": rows}
    who = "1 row" if rows == 1 else "{rows:,} rows"
    others = "" if learned.all() else "; the others run to their limits"
    why = f"{{low:,.0f}} to {{high:,.0f}} in 9 of 10 cases, if {who} answer as in earlier runs{others}"
    return Decision("output tokens", total, why, facts=facts)


def _without_history(total: int, unbounded: int) -> Decision:
    if not unbounded:
        return Decision("output tokens", total, "every row runs to its max_tokens")
    who = "1 row sets" if unbounded == 1 else "{rows:,} rows set"
    why = f"{who} no max_tokens: {{assumed}} tokens assumed, less where the context ends; others run to theirs"
    return Decision("output tokens", total, why, facts={"rows": unbounded, "assumed": UNBOUNDED})

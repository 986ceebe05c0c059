"""Orders the rows: of several depth-first walks of the forest, the one that the clock finds fastest.

All of them hold a shared run from its first reader to its last, and no longer; they differ in which siblings come
first. BatchLLM's order (arXiv 2412.03594, section 4.2) starts with what decodes most for its prompt tokens, so that
decodes fill the steps of later prompts; longest answers first keeps a few long ones from running alone at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from umbel import registry
from umbel.ir.forest import Forest
from umbel.ir.plan import Decision
from umbel.plan.draft import PlanDraft
from umbel.plan.forest.price import largest_between, sums_between
from umbel.plan.forest.regroup import sum_below
from umbel.plan.passes.prefix import sum_above
from umbel.plan.walk.pricing import run_seconds

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_SECONDS = 0.99  # of the order as given: another one must save more than 1 %, as its answers come out of order


def order_rows(draft: PlanDraft) -> PlanDraft:
    """Walk the forest in the order that the clock finds fastest; in input order unless another saves more than 1 %.

    Prices whole runs, so it comes after the passes that set lengths, chunk and pool.
    """
    forest, major = draft.forest, _scopes(draft)
    if major is not None:  # a forest that shares nothing has its rows in the input's order
        forest = reorder(forest, np.zeros(forest.n_nodes), major=major)
        draft = replace(draft, forest=forest)
    shares = bool(forest.n_nodes) and int(forest.rows_below.max()) > 1
    as_given = "tree walk" if shares else "input"
    candidates = {as_given: forest}
    for name, other in other_orders(draft):
        if not any(np.array_equal(other.order, known.order) for known in candidates.values()):
            candidates[name] = other
    if len(candidates) == 1:
        return draft.decide(Decision("order", as_given, _reason(as_given)), order=forest.order)
    seconds = {name: run_seconds(draft, forest=c, order=c.order) for name, c in candidates.items()}
    best = min(seconds, key=lambda name: seconds[name])
    chosen = best if seconds[best] < MOST_SECONDS * seconds[as_given] else as_given
    others = tuple((name, s) for name, s in seconds.items() if name != chosen)
    decision = Decision("order", chosen, _reason(chosen), others)
    return draft.decide(decision, forest=candidates[chosen], order=candidates[chosen].order)


def reorder(
    forest: Forest, key: Floats | Ints, row_key: Floats | Ints | None = None, major: Ints | None = None
) -> Forest:
    """The same forest with siblings, and roots, by ascending `key` (`[nodes]`); equal keys keep their order. Where
    `major` (`[nodes]`) is given, it comes first.

    `row_key` (`[rows]`) orders the rows that end at one node in the same way. No loop over nodes: a node's number is
    that of its parent, plus one, plus the sizes of the siblings' subtrees before it.
    """
    nodes = np.arange(forest.n_nodes)
    size = forest.subtree_end - nodes
    turn = np.lexsort((key, forest.parent) if major is None else (key, major, forest.parent))
    before = np.cumsum(size[turn]) - size[turn]
    family = forest.parent[turn]
    first = np.flatnonzero(np.diff(family, prepend=-2))
    before -= np.repeat(before[first], np.diff(np.append(first, len(turn))))
    ahead = np.empty_like(nodes)
    ahead[turn] = before
    number = np.append(sum_above(forest, ahead + 1) - 1, -1)  # parent -1 finds the last entry
    place = np.empty_like(nodes)
    place[number[:-1]] = nodes
    leaf = number[forest.leaf]
    rows = forest.order
    by = (leaf[rows],) if row_key is None else (row_key[rows], leaf[rows])
    return Forest(
        parent=number[forest.parent[place]],
        start=forest.start[place],
        end=forest.end[place],
        source=forest.source[place],
        subtree_end=nodes + size[place],
        rows_below=forest.rows_below[place],
        leaf=leaf,
        order=rows[np.lexsort(by)],
    )


def other_orders(draft: PlanDraft) -> Iterator[tuple[str, Forest]]:
    """The candidates besides the forest as it stands."""
    forest, rows = draft.forest, draft.forest.order
    if not len(rows):
        return
    ends = np.bincount(forest.leaf[rows], minlength=forest.n_nodes)
    begin = np.cumsum(ends) - ends
    drawn = sums_between((draft.samples * draft.lengths)[rows], begin, begin + forest.rows_below)
    longest = largest_between(draft.lengths[rows], begin, begin + forest.rows_below)
    tokens, major = sum_below(forest.end - forest.start, forest.subtree_end), _scopes(draft)
    yield "decode-heavy first", reorder(forest, -drawn / tokens, -draft.lengths, major)
    inside = np.where(forest.parent < 0, 0, -longest)
    yield "longest first inside", reorder(forest, inside, -draft.lengths, major)
    yield "longest first", reorder(forest, -longest, -draft.lengths, major)


def _scopes(draft: PlanDraft) -> Ints | None:
    """The scope of each node (`[nodes]`): the rows of one adapter follow one another, so that it is read once, and a
    step has rows of few (S-LoRA, 2311.03285). None where there is one scope."""
    scope = draft.workload.scope
    return None if scope is None else scope[draft.forest.source]


def _reason(name: str) -> str:
    if name == "input":
        return "no prompts share a beginning, so rows run as they come"
    return registry.find("order", name).says

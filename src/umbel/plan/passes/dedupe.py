"""Answers identical rows once: where equal tokens and parameters make equal answers certain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from umbel.ir.distinct import Distinct
from umbel.ir.forest import Forest
from umbel.ir.plan import Decision
from umbel.plan.draft import PlanDraft
from umbel.plan.forest.regroup import rows_below
from umbel.plan.passes.prefix import build_forest

Ints = NDArray[np.int64]


def answer_once(draft: PlanDraft) -> PlanDraft:
    """Let every row that is greedy or has a seed take the answer of the first row with its tokens and parameters.

    Such rows have one answer, with its log-probabilities, wherever they stand: greedy ones (temperature 0) draw
    nothing, and one with a seed of its own draws by that seed, sample and position alone. All of their `n` samples are
    copied together. Rows that draw by the job's seed are never twins: their keys differ. Twins leave the order and the
    forest's counts, so that runs are released when the last row that runs is done. Runs after `prefix`, whose forest
    ends equal prompts at one node. Linear in the rows.
    """
    same_as = find_twins(draft)
    twins = same_as != np.arange(len(same_as))
    again = int(twins.sum())
    if not again:
        return draft.decide(
            Decision("dedupe", "0 rows", "no greedy or seeded row has the tokens and parameters of another")
        )
    forest = without_twins(draft.forest, same_as)
    answered = int((draft.samples * draft.lengths)[twins].sum())
    read = int(np.diff(draft.workload.offsets)[twins].sum())
    why = (
        "greedy or seeded, with the tokens and parameters of an earlier row: {prompt_tokens:,} prompt tokens not read "
        "again, about {output_tokens:,} output tokens not generated again"
    )
    facts = {"rows": again, "prompt_tokens": read, "output_tokens": answered}
    decision = Decision("dedupe", f"{again:,} row{'s' if again > 1 else ''}", why, facts=facts)
    return draft.decide(decision, forest=forest, order=forest.order, same_as=same_as)


def find_twins(draft: PlanDraft) -> Ints:
    """The first row with the tokens and parameters of each row where these decide the answer, else the row itself
    (`[rows]`)."""
    params = Distinct.of(draft.workload.params)
    decided = np.flatnonzero(params.column(lambda p: p.temperature == 0 or p.seed is not None))
    numbers, n_params = params.by_value()
    keys = (_prompts(draft) * n_params + numbers)[decided]
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    same_as = np.arange(len(numbers))
    same_as[decided] = decided[first[which]]
    return same_as


def without_twins(forest: Forest, same_as: Ints) -> Forest:
    """The forest with only the rows that run in its order and counts, without nodes that none of them needs."""
    leaf = forest.leaf[same_as]
    order = forest.order[same_as[forest.order] == forest.order]
    below = rows_below(leaf[order], forest.subtree_end)
    used = below > 0
    if used.all():
        return replace(forest, rows_below=below, leaf=leaf, order=order)
    before = np.concatenate([[0], np.cumsum(used)])  # used nodes before each
    number = np.append(before[:-1], -1)  # parent -1 finds the last entry
    return Forest(
        parent=number[forest.parent[used]],
        start=forest.start[used],
        end=forest.end[used],
        source=forest.source[used],
        subtree_end=before[forest.subtree_end[used]],
        rows_below=below[used],
        leaf=number[leaf],
        order=order,
    )


def _prompts(draft: PlanDraft) -> Ints:
    """A number for each row that is the same for equal prompts: the node where they end, unless nothing is shared."""
    forest = draft.forest
    if forest.n_nodes < len(forest.leaf) or (forest.parent >= 0).any():
        return forest.leaf
    return build_forest(draft.workload).leaf  # one run a row: also what sharing switched off looks like

"""The cost of a run of shared tokens: computing it, holding and reading it while its readers answer, and its upkeep.

A run of `n` tokens at node v of the full forest costs `token(v) * n + upkeep(v)` seconds, wherever it begins:

- `token(v)`: one token's share of a full step, and the reading of its KV in every step of the node's life;
- `upkeep(v)`: bookkeeping once, per step of its life and per reader, and reading the part of its last page that stays
  empty (half a page on average).

A life is the steps in which a row below is answered: the longest answer below, and all tokens that the rows below
compute alone, at a chunk a step. Lives of parts together are never shorter than the whole's, so a fork that pays does
so wherever its own run begins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cost.roofline import ORDINARY, Load
from umbel.cost.windows import Windows
from umbel.ir.distinct import Distinct
from umbel.ir.forest import Forest
from umbel.plan.draft import PlanDraft
from umbel.plan.forest.regroup import Grouping, runs_of, sum_below

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Seconds of one core, measured with a runner that computes nothing (bench/planning.py --upkeep): what one more node
# costs when it is taken and given back, per step with rows below it, and per sample that reads it.
ONCE, PER_STEP, PER_READER = 1e-5, 1e-6, 1e-6
TYPICAL = 128  # output tokens assumed of rows whose length is not bounded below that yet


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds per node of the full forest (`[nodes]`).

    `token`, `upkeep`: of the node as a shared run, per token and in all.
    `tail_token`, `tail_upkeep`: of the part that the prompts which end there have alone.
    """

    token: Floats
    upkeep: Floats
    tail_token: Floats
    tail_upkeep: Floats

    def total(self, forest: Forest, grouping: Grouping) -> tuple[int, float]:
        """Prompt tokens computed and seconds spent by the runs of a grouping."""
        runs = runs_of(forest, grouping)
        shared = grouping.depth[runs.group] - runs.group_start
        own = forest.end[runs.tail] - runs.tail_start
        seconds = self.token[runs.group] @ shared + self.tail_token[runs.tail] @ own
        upkeep = self.upkeep[runs.group].sum() + self.tail_upkeep[runs.tail].sum()
        return int(shared.sum() + own.sum()), float(seconds + upkeep)

    def alone(self, forest: Forest) -> tuple[int, float]:
        """Prompt tokens and seconds when every row computes its whole prompt, equal ones too."""
        each = self.tail_token * forest.end + self.tail_upkeep
        return int(forest.end[forest.leaf].sum()), float(each[forest.leaf].sum())


def price_runs(draft: PlanDraft, forest: Forest) -> Costs:
    """The costs of every node of the full forest of a draft."""
    compute, read = _token_seconds(draft), _read_seconds(draft)
    samples, answers = _answers(draft)
    order = forest.order
    ends = np.bincount(forest.leaf, minlength=forest.n_nodes)
    begin = np.cumsum(ends) - ends  # place in the order of each node's first row
    childless = forest.subtree_end == np.arange(forest.n_nodes) + 1
    own = sum_below(np.where(childless, forest.end - forest.start, 0), forest.subtree_end)

    def costs(stop: Ints, fresh: Ints) -> tuple[Floats, Floats]:
        """The costs of rows `begin:stop` of the order, which compute `fresh` prompt tokens of their own."""
        readers = sums_between(samples[order], begin, stop)
        drawn = sums_between((samples * answers)[order], begin, stop)
        life = largest_between(answers[order], begin, stop) + (drawn + fresh) / draft.chunk
        half_page = (draft.config.page_size - 1) / 2
        upkeep = ONCE + PER_READER * readers + (PER_STEP + read * half_page) * life
        return compute + read * life, upkeep

    token, upkeep = costs(begin + forest.rows_below, own)
    tail_token, tail_upkeep = costs(begin + ends, np.where(childless, own, 0))
    return Costs(token, upkeep, tail_token, tail_upkeep)


def _token_seconds(draft: PlanDraft) -> float:
    """Seconds to compute one prompt token in full steps, in the middle of a prompt of mean length."""
    n, chunk = len(draft.workload.tokens), draft.chunk
    seen = n / max(len(draft.workload), 1) / 2
    seen = float(Windows.of(draft.spec).seen(seen))
    return float(draft.price.each(Load.one(chunk, 0, chunk * seen, 0))[0]) / chunk


def _read_seconds(draft: PlanDraft) -> float:
    """Seconds to read one token's KV once, at the memory rate that an ordinary step reaches."""
    return draft.price.shape.kv_bytes / (draft.price.machine.memory_rate * ORDINARY.memory)


def _answers(draft: PlanDraft) -> tuple[Ints, Ints]:
    """Samples and output tokens of each row (`[rows]`), guessed where no pass has set them yet."""
    if draft.lengths.max(initial=1) > 1:
        return draft.samples, draft.lengths
    params = Distinct.of(draft.workload.params)
    return params.column(lambda p: p.n), params.column(
        lambda p: TYPICAL if p.max_tokens is None else min(p.max_tokens, TYPICAL)
    )


def sums_between(values: Ints, begin: Ints, stop: Ints) -> Ints:
    """The sum of each `values[begin:stop]`."""
    total = np.concatenate([[0], np.cumsum(values)])
    return np.asarray(total[stop] - total[begin])


def largest_between(values: Ints, begin: Ints, stop: Ints) -> Ints:
    """The largest of each `values[begin:stop]` (0 for none): two windows of a power of two cover a range."""
    size = stop - begin
    power = np.frexp(np.maximum(size, 1).astype(float))[1] - 1
    most, level = np.zeros_like(begin), values
    for k in range(int(power.max(initial=0)) + 1):
        here = (power == k) & (size > 0)
        most[here] = np.maximum(level[begin[here]], level[stop[here] - (1 << k)])
        if len(level) > 1 << k:
            level = np.maximum(level[: -(1 << k)], level[1 << k :])
    return most

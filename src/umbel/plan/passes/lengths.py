"""Assumes how long answers are: what is not bounded by the row is guessed, and said to be."""

from __future__ import annotations

import numpy as np

from umbel.ir.params import SamplingParams
from umbel.ir.plan import Decision
from umbel.plan.draft import Draft

UNBOUNDED = 128  # output tokens assumed of a row without `max_tokens`


def assume_lengths(draft: Draft) -> Draft:
    """Every row runs to its `max_tokens`; one without is taken to write 128 tokens, or what its context leaves."""
    workload = draft.workload
    known: dict[int, tuple[int, int]] = {}  # one look at each params object, however many rows share it

    def read(params: SamplingParams) -> tuple[int, int]:
        if id(params) not in known:
            known[id(params)] = params.n, params.max_tokens or 0
        return known[id(params)]

    pairs = np.array([read(p) for p in workload.params], np.int64).reshape(len(workload), 2)
    samples, limit = pairs[:, 0], pairs[:, 1]
    room = np.maximum(draft.spec.max_positions - np.diff(workload.offsets), 1)
    lengths = np.minimum(np.where(limit > 0, limit, UNBOUNDED), room)
    limits = np.where(limit > 0, lengths, room)
    guessed = int((limit == 0).sum())
    total = int((lengths * samples).sum())
    reason = "every row runs to its max_tokens"
    if guessed:
        who = "1 row sets" if guessed == 1 else f"{guessed:,} rows set"
        reason = f"{who} no max_tokens: {UNBOUNDED} tokens assumed, less where the context ends; others run to theirs"
    return draft.decide(Decision("output tokens", total, reason), samples=samples, lengths=lengths, limits=limits)

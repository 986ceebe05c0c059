"""Biases and penalties of draws: against numpy from the definition, in place or apart, by the kernels of GPUs too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runner.draws import sampling_of, slow_sample
from umbel.ir.logit_changes import LogitChanges, join_changes
from umbel.kernels.rows import change_logits
from umbel.runner.sampling import sample

WIDTH = 40


def random_changes(rng: np.random.Generator, draws: list[int]) -> LogitChanges:
    """Changes of some draws, of up to all tokens."""
    ids = [rng.permutation(WIDTH)[: rng.integers(0, WIDTH)] for _ in draws]
    begin, n = np.append(0, np.cumsum([len(each) for each in ids], dtype=np.int64)), sum(map(len, ids))
    bias = np.where(rng.random(n) < 0.4, rng.uniform(-3, 3, n), 0).astype(np.float32)
    penalties = np.stack([rng.uniform(0.5, 2, len(draws)), *rng.uniform(-2, 2, (2, len(draws)))], 1).astype(np.float32)
    flat = np.concatenate([np.zeros(0, np.int64), *ids]).astype(np.int64)
    return LogitChanges(np.array(draws, np.int64), begin, flat, bias, rng.integers(-1, 4, n), penalties)


def changed(row: np.ndarray, changes: LogitChanges, draw: int) -> np.ndarray:
    """The logits of one draw, token by token, each step in float32."""
    out = row.astype(np.float32).copy()
    for place in np.flatnonzero(changes.draws == draw).tolist():
        repetition, frequency, presence = changes.penalties[place]
        for at in range(changes.begin[place], changes.begin[place + 1]):
            count, x = int(changes.counts[at]), np.float32(out[changes.ids[at]] + changes.bias[at])
            if count >= 0:
                x = x / repetition if x > 0 else x * repetition
            if count > 0:
                x = np.float32(x - np.float32(frequency * np.float32(count))) - presence
            out[changes.ids[at]] = x
    return out


DRAW = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from((0.0, 0.7, 1.5)),
        "top_k": st.sampled_from((0, 3)),
        "top_p": st.sampled_from((1.0, 0.8)),
        "min_p": st.sampled_from((0.0, 0.1)),
        "logprobs": st.sampled_from((-1, -1, 2)),
    }
)


@settings(max_examples=100)
@given(st.lists(DRAW, min_size=1, max_size=70), st.integers(0, 10**6), st.booleans())
def test_draws_are_what_the_definition_says(asked: list[dict[str, Any]], seed: int, alone: bool) -> None:
    """Draws with and without changes and masks, alone in their rows or several of one; log-probabilities of the logits
    as they came."""
    rng, n = np.random.default_rng(seed), len(asked)
    logits = np.round(rng.standard_normal((n, WIDTH)) * 2, 1).astype(np.float32)
    columns = {name: [each[name] for each in asked] for name in asked[0]}
    at = np.arange(n) if alone else rng.integers(0, 3, n) % n
    sampling = sampling_of(n, at=at, banned={0: (1, 2)} if seed % 2 else None, width=WIDTH, **columns)
    parts = [random_changes(rng, [i for i in range(n) if i % 3 == part]) for part in (0, 1)]
    changes = join_changes(parts[: seed % 3])
    tested = replace(sampling, changes=changes)
    got = sample(torch.from_numpy(logits.copy()), at, tested)
    for i in range(n):
        own = logits[at[i]] if changes is None else changed(logits[at[i]], changes, i)
        table = np.tile(own, (n, 1))
        assert got.token_ids[i] == slow_sample(table, sampling, i)
        if sampling.logprobs[i] >= 0:
            assert got.logprobs is not None
            wide = logits[at[i]].astype(np.float64)
            wanted = wide[got.token_ids[i]] - np.log(np.exp(wide - wide.max()).sum()) - wide.max()
            assert abs(got.logprobs[i] - wanted) < 1e-5


def test_the_kernels_of_gpus_change_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")
    from umbel.kernels.triton.rows import TritonRows

    rng = np.random.default_rng(1)
    logits = rng.standard_normal((5, WIDTH)).astype(np.float32)
    changes, rows = random_changes(rng, [4, 0, 2]), np.array([1, 4, 3])
    found = []
    for fast in (None, TritonRows()):
        monkeypatch.setattr("umbel.kernels.rows.kernels_for", lambda *tensors, fast=fast: fast)
        table = torch.from_numpy(logits.copy())
        change_logits(table, rows, changes)
        found.append(table.numpy())
    wanted = logits.copy()
    for row, draw in zip(rows.tolist(), changes.draws.tolist(), strict=True):
        wanted[row] = changed(logits[row], changes, draw)
    assert np.array_equal(found[0], wanted) and np.allclose(found[1], wanted, rtol=0, atol=1e-6)

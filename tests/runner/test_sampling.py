"""The sampler: ties, filters and their order, distributions, seeds, log-probabilities, bans."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parameters import some_of
from tests.runner.draws import kept, sampling_of, slow_sample
from umbel.runner.sampling import sample


def run(logits: np.ndarray, n: int, **columns):
    """Draw `n` samples from one row of logits or, with `at`, from several."""
    table = torch.from_numpy(np.atleast_2d(logits).astype(np.float32))
    sampling = sampling_of(n, **columns)
    return sample(table, sampling.at, sampling)


def p_value(observed: np.ndarray, p: np.ndarray) -> float:
    """The p-value of a chi-square test, by the Wilson-Hilferty approximation; bins of zero probability must be
    empty."""
    assert (observed[p == 0] == 0).all()
    n, p = observed.sum(), p / p.sum()
    rare = (p > 0) & (p * n < 5)
    bins = [(observed[i], p[i] * n) for i in np.flatnonzero((p > 0) & ~rare)]
    if p[rare].sum() * n >= 5:
        bins.append((observed[rare].sum(), p[rare].sum() * n))
    chi2, free = sum((o - e) ** 2 / e for o, e in bins), len(bins) - 1
    z = ((chi2 / free) ** (1 / 3) - (1 - 2 / (9 * free))) / math.sqrt(2 / (9 * free))
    return 0.5 * math.erfc(z / math.sqrt(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_greedy_ties_go_to_the_lowest_id(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 4, (300, 500)).astype(np.float32)
    table = torch.from_numpy(logits).to(dtype).float()
    got = sample(table, np.arange(300), sampling_of(300, at=np.arange(300), temperature=0.0))
    assert got.token_ids.tolist() == [int(np.flatnonzero(row == row.max())[0]) for row in logits]


def test_top_k_keeps_exactly_k_of_equals_the_lowest_ids() -> None:
    logits = np.array([1.0, 5.0, 2.0, 2.0, 2.0, 2.0, 0.0])
    for k in range(1, 8):
        seen = set(run(logits, 4000, top_k=k, temperature=2.0).token_ids.tolist())
        assert seen == set([1, 2, 3, 4, 5, 0, 6][:k])


def test_top_p_keeps_the_lowest_ids_of_equals() -> None:
    seen = set(run(np.zeros(10), 2000, top_p=0.3).token_ids.tolist())
    assert seen == {0, 1, 2}


def test_the_filters_take_turns() -> None:
    """Cases where another order of temperature, min-p, top-k and top-p would keep other tokens."""
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1]))
    cases = [
        (dict(top_k=2, top_p=0.6), {0, 1}),  # renormalised after top-k: 0.57, 0.43; before it, top-p would keep two too
        (dict(top_k=2, top_p=0.57), {0}),  # of the two left the first holds 0.571; of all four, 0.4 would not reach it
        (dict(min_p=0.6, top_p=0.55), {0}),  # min-p leaves 0.4 and 0.3, of which the first is 0.571
        (dict(min_p=0.6), {0, 1}),
        (dict(min_p=0.6, temperature=2.0), {0, 1, 2}),  # cooler probabilities: 0.2 is now 0.707 of the largest
        (dict(top_p=1e-9), {0}),
        (dict(min_p=1.0), {0}),
    ]
    for columns, wanted in cases:
        assert set(run(logits, 3000, **columns).token_ids.tolist()) == wanted, columns


FILTERS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from((0.0, 0.3, 1.0, 1.7)),
        "top_k": st.sampled_from((0, 1, 2, 5, 100)),
        "top_p": st.sampled_from((1.0, 0.9, 0.5, 0.1)),
        "min_p": st.sampled_from((0.0, 0.05, 0.5)),
    }
)


@settings(max_examples=150)
@given(st.lists(FILTERS, min_size=1, max_size=70), st.integers(0, 1000))
def test_every_sample_is_what_the_definition_says(filters: list[dict[str, float]], seed: int) -> None:
    """Mixed rows in one call, with ties and equal logits, against a sampler that goes token by token."""
    rng = np.random.default_rng(seed)
    logits = np.round(rng.standard_normal((3, 40)) * 2, 1).astype(np.float32)
    columns = {name: [f[name] for f in filters] for name in filters[0]}
    n = len(filters)
    sampling = sampling_of(n, at=np.arange(n) % 3, banned={0: (1, 2), n - 1: (0, 39)}, width=40, **columns)
    got = sample(torch.from_numpy(logits), sampling.at, sampling)
    assert got.token_ids.tolist() == [slow_sample(logits, sampling, i) for i in range(n)]


ALL_FILTERS = {"temperature": 1.5, "top_k": 12, "top_p": 0.9, "min_p": 0.02}


@pytest.mark.parametrize(
    ("n", "columns"),
    some_of(
        [
            (100_000, ALL_FILTERS),
            (300_000, {}),
        ],
        [
            (200_000, {"temperature": 0.5}),
            (200_000, {"top_k": 7}),
            (200_000, {"top_p": 0.8}),
            (200_000, {"min_p": 0.1}),
            (500_000, ALL_FILTERS),
        ],
    ),
    ids=str,
)
def test_draws_follow_the_distribution(n: int, columns: dict[str, float]) -> None:
    logits = np.random.default_rng(4).standard_normal(24).astype(np.float32) * 1.5
    ids = run(logits, n, **columns).token_ids
    heat = columns.get("temperature", 1.0)
    alive = kept(logits, heat, columns.get("top_k", 0), columns.get("top_p", 1.0), columns.get("min_p", 0.0))
    p = np.where(alive, np.exp((logits - logits.max()) / heat), 0.0)
    assert p_value(np.bincount(ids, minlength=24), p) > 0.001


def test_the_test_of_distributions_can_fail() -> None:
    n = 200_000
    ids = run(np.zeros(24), n).token_ids
    p = np.ones(24)
    assert p_value(np.bincount(ids, minlength=24), p) > 0.001
    p[3] = 1.1
    assert p_value(np.bincount(ids, minlength=24), p) < 0.001


def test_a_seeded_row_does_not_feel_its_neighbours() -> None:
    """1,000 times: the same sample alone, and among others with other settings, seeds and logits."""
    rng = np.random.default_rng(1)
    own = rng.standard_normal(50).astype(np.float32)
    for trial in range(1000):
        alone = sampling_of(1, keys=77, seeds=trial, samples=2, positions=9, top_p=(1.0, 0.9)[trial % 2])
        wanted = sample(torch.from_numpy(own[None]), alone.at, alone).token_ids[0]
        n, at = int(rng.integers(2, 90)), int(rng.integers(0, 2))
        columns = {
            "temperature": rng.choice([0.0, 0.7, 1.0], n), "top_k": rng.choice([0, 3], n),
            "top_p": rng.choice([1.0, 0.5], n), "seeds": rng.integers(0, 5, n), "keys": rng.integers(0, 500, n),
            "samples": np.zeros(n), "positions": np.full(n, 9), "at": np.ones(n),
        }  # fmt: skip
        mine = {
            "temperature": 1.0,
            "top_k": 0,
            "top_p": alone.top_p[0],
            "seeds": trial,
            "keys": 77,
            "samples": 2,
            "at": 0,
        }
        for name, value in (mine | {"at": 0}).items():
            columns[name][at] = value
        table = np.stack([own, rng.standard_normal(50).astype(np.float32)])
        assert run(table, n, **columns).token_ids[at] == wanted


def test_samples_of_a_row_are_distinct_and_reproducible() -> None:
    logits = np.zeros(1000)
    first = run(logits, 300, keys=5, samples=np.arange(300)).token_ids
    again = run(logits, 300, keys=5, samples=np.arange(300)).token_ids
    assert (first == again).all() and len(set(first.tolist())) > 220
    assert (first != run(logits, 300, keys=5, samples=np.arange(300), seeds=2).token_ids).mean() > 0.9


def test_logprobs_are_those_of_the_unscaled_distribution() -> None:
    rng = np.random.default_rng(2)
    logits = np.round(rng.standard_normal((5, 60)) * 3, 1).astype(np.float32)
    wanted = torch.log_softmax(torch.from_numpy(logits), -1).double().numpy()
    asked = np.array([-1, 0, 3, 20, 5])
    got = run(logits, 5, at=np.arange(5), logprobs=asked, temperature=(0.0, 0.5, 1.0, 1.9, 1.0), top_k=(0, 2, 0, 5, 1))
    assert got.logprobs is not None and got.top_ids is not None and got.top_logprobs is not None
    assert np.isnan(got.logprobs[0])
    for i in range(1, 5):
        assert got.logprobs[i] == wanted[i, got.token_ids[i]]
        order = sorted(range(60), key=lambda j: (-wanted[i, j], j))[:20]
        assert got.top_ids[i].tolist() == order and got.top_logprobs[i].tolist() == wanted[i, order].tolist()
        assert len(set(got.top_ids[i].tolist())) == 20
    assert run(logits, 5, at=np.arange(5)).logprobs is None


def test_banned_ids_are_not_drawn_and_do_not_change_the_logprobs() -> None:
    logits = np.array([9.0, 8.0, 1.0, 0.0])
    got = run(logits, 3, temperature=(0.0, 0.0, 1.0), logprobs=0, banned={0: (0,), 2: (0, 1)}, width=4)
    assert got.token_ids[:2].tolist() == [1, 0] and got.token_ids[2] in (2, 3)
    assert got.logprobs is not None
    wanted = torch.log_softmax(torch.tensor(logits, dtype=torch.float32), -1).double().numpy()
    assert got.logprobs.tolist() == wanted[got.token_ids].tolist()
    many = run(np.zeros(5), 500, banned={i: (0, 4) for i in range(500)}, width=5)
    assert set(many.token_ids.tolist()) == {1, 2, 3}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_marked(value: float) -> None:
    logits = np.zeros((4, 10), np.float32)
    logits[2, 3] = value
    logits[3] = -np.inf
    logits[1, 0] = -np.inf  # one impossible token is no fault
    for columns in ({"temperature": 0.0}, {"temperature": 1.0}, {"top_p": 0.5, "logprobs": 3}):
        got = run(logits, 4, at=np.arange(4), **columns)
        assert got.bad.tolist() == [False, False, True, True]
        assert ((got.token_ids >= 0) & (got.token_ids < 10)).all(), "even a bad sample has an id that can be handled"

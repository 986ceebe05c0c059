"""Sampling for GPUs against its meaning in torch: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed here")

from torch import Tensor

from tests.parameters import few_of
from umbel.kernels import reference
from umbel.kernels.reference import Filters
from umbel.kernels.triton.sampling import draw_ids, find_largest

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def logits_of(rows: int, width: int, seed: int) -> Tensor:
    return (torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 3).to(DEVICE)


def to_device(*columns: np.ndarray) -> list[Tensor]:
    return [torch.from_numpy(column).to(DEVICE) for column in columns]


@pytest.mark.parametrize("width", [2, 4096, 9000])
def test_the_largest(width: int) -> None:
    logits = logits_of(6, width, width)
    logits[1] = 0.5  # the first of equal ones
    logits[2, 1] = torch.nan
    logits[3, width - 1] = torch.inf
    logits[4] = -torch.inf
    rows = torch.tensor([5, 0, 1, 3, 2, 4, 0], device=DEVICE)
    ids, bad = find_largest(logits, rows)
    wanted, torn = reference.largest(logits)
    fine = ~torn[rows]
    assert torch.equal(bad, torn[rows]) and torch.equal(ids[fine], wanted[rows][fine])
    assert ids[2] == 0 and bad.sum() == 3 and (ids < width).all()


@pytest.mark.parametrize("width", [7, 4096, 5000])
def test_draws_are_races(width: int) -> None:
    """The same ids as the reference's, and never one without weight."""
    logits = logits_of(3, width, width)
    logits[1, 1:] = -torch.inf
    rng = np.random.default_rng(width)
    rows, heat = rng.integers(0, 3, 40), rng.uniform(0.2, 2.0, 40).astype(np.float32)
    at, temperatures, noise = to_device(rows, heat, rng.integers(-(2**63), 2**63, 40))
    got = draw_ids(logits, at, logits.argmax(-1)[at], temperatures, noise, None)
    weights = reference.weights(logits[at], temperatures.unsqueeze(-1))
    assert torch.equal(got, reference.race(weights, noise)) and (got[at == 1] == 0).all()
    assert len(set(got.tolist())) > 5


@pytest.mark.parametrize("width", few_of([300], [5, 4100]))
@pytest.mark.parametrize("levels", few_of([3], [10_000]), ids=["ties", "apart"])
def test_filters_keep_what_the_reference_keeps(width: int, levels: int) -> None:
    """Each draw is the reference's, from what it leaves; few levels mean many equal logits, of which the lowest ids
    stay."""
    rng = np.random.default_rng(width + levels)
    count = 12 if width < 4096 else 4
    logits = (torch.from_numpy(rng.integers(0, levels, (4, width))).float() * (9.0 / levels)).to(DEVICE)
    rows, heat = rng.integers(0, 4, count), rng.uniform(0.5, 2.0, count).astype(np.float32)
    keys = rng.integers(-(2**63), 2**63, count)
    top_k = rng.choice([0, 1, 2, width // 2, width, width + 9], count)
    top_p = rng.choice([1.0, 1e-9, 0.3, 0.7, 0.95], count)
    min_p = rng.choice([0.0, 0.05, 0.5, 1.0], count)
    at, temperatures, noise, k, p, floor = to_device(rows, heat, keys, top_k, top_p, min_p)
    got = draw_ids(logits, at, logits.argmax(-1)[at], temperatures, noise, Filters(k, p, floor))
    kept = reference.filtered(reference.weights(logits[at], temperatures.unsqueeze(-1)), Filters(k, p, floor))
    assert torch.equal(got, reference.race(kept, noise))
    cut = 0
    for i, drawn in enumerate(got.tolist()):
        assert kept[i, drawn] > 0, (i, top_k[i], top_p[i], min_p[i])
        cut += int((kept[i] == 0).any())
    assert cut > count // 2

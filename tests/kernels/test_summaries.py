"""Summaries of keys against queries by the compiled kernels: products in plain torch, for each instruction set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from umbel.attention.select.base import KeyBounds
from umbel.kernels.native.calls import INSTRUCTION_SETS, Native
from umbel.kernels.native.summaries import score_summaries

EACH = pytest.mark.parametrize("name", INSTRUCTION_SETS)


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("group", "parts", "width"), [(2, 8, 64), (1, 1, 7), (5, 3, 40)])
def test_the_largest_product_of_each_summary(name: str, dtype: torch.dtype, group: int, parts: int, width: int) -> None:
    generator = torch.Generator().manual_seed(group)
    queries = torch.randn(3, 2, group, width, generator=generator)
    held = torch.randn(30, 2, parts, width, generator=generator).to(dtype)
    at = [torch.randperm(30, generator=generator)[:n].numpy() for n in (9, 0, 17)]
    found = score_summaries(Native(name), queries, held, at)
    assert found.shape == (3, 2, 17)
    for tile, rows in enumerate(at):
        products = torch.einsum("hgw,chpw->hcgp", queries[tile], held[torch.from_numpy(rows)].float())
        torch.testing.assert_close(found[tile, :, : len(rows)], products.flatten(2).amax(2), atol=1e-4, rtol=1e-5)
        assert (found[tile, :, len(rows) :] == -torch.inf).all()
    alone = score_summaries(Native(name), queries[2:], held, at[2:])
    assert torch.equal(alone[0], found[2])


@pytest.mark.skipif(not INSTRUCTION_SETS, reason="no compiled kernels")
def test_what_does_not_fit_is_refused() -> None:
    native, held, rows = Native(INSTRUCTION_SETS[0]), torch.zeros(4, 2, 3, 8), np.arange(2)
    queries = torch.zeros(1, 2, 1, 8)
    for wrong, at, why in (
        (torch.zeros(1, 1, 1, 8), [rows], "do not fit"),
        (queries, [rows, rows], "rows for 2 tiles"),
        (queries, [rows - 1], "rows -1 to 0 of 4 summaries"),
        (queries, [rows + 3], "rows 3 to 4 of 4 summaries"),
    ):
        with pytest.raises((ValueError, IndexError), match=why):
            score_summaries(native, wrong, held, at)
    with pytest.raises(TypeError, match=r"torch\.float16"):
        score_summaries(native, queries, held.half(), [rows])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_bounds_stay_bounds_when_they_are_rounded(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    keys, need = scale * torch.randn(50, 16, 32, generator=generator), KeyBounds(16)
    queries = torch.randn(50, 32, generator=generator)
    bounds = (need.asked(queries).double() * need.of(keys).double()).sum(-1)
    largest = torch.einsum("nd,nkd->nk", queries.double(), keys.double()).amax(1)
    assert need.of(keys).dtype == torch.bfloat16 and (bounds >= largest).all()

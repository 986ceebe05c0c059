"""Matrices that rows change, by compiled kernels and in plain torch, against loops over rows in float64."""

from __future__ import annotations

import pytest
import torch

from tests.parameters import some_of
from umbel.kernels.chain import reference
from umbel.kernels.change import Chain, Change
from umbel.kernels.native.calls import INSTRUCTION_SETS, Native

SIZES = {
    "few": (4, 2, 16, 24),
    "odd": (5, 1, 33, 70),
    "odd heads": (3, 3, 20, 12),
    "usual": (2, 2, 128, 128),
    "one": (6, 2, 1, 1),
}
ROWS, PAGES = 12, 6


def made(heads: int, key_heads: int, key_dim: int, value_dim: int, *, corrects: bool) -> tuple[torch.Tensor, Change]:
    torch.manual_seed(heads)
    keys = torch.nn.functional.normalize(torch.randn(ROWS, key_heads, key_dim), dim=-1)
    values, columns = torch.randn(ROWS, heads, value_dim), torch.rand(2, ROWS, heads)
    rates = columns[1].contiguous() if corrects else None
    change = Change(torch.randn_like(keys), keys, values, columns[0].contiguous(), rates)
    return torch.randn(PAGES, heads, key_dim, value_dim), change


def chain() -> Chain:
    """Three runs: one that crosses pages, one that goes on where it ended, one row that only reads."""
    source = torch.tensor([-1, 0, 0, 0, 1, 1, 1, 2, 2, 5, 1, 3])
    target = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, -1, 3, 3])
    waves = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 6, 7])
    return Chain(source, target, torch.argsort(waves, stable=True), tuple(torch.bincount(waves).cumsum(0).tolist()))


def expected(matrices: torch.Tensor, change: Change) -> tuple[torch.Tensor, torch.Tensor]:
    """Row by row and head by head."""
    matrices, one = matrices.double().clone(), chain()
    out = torch.empty_like(change.values, dtype=torch.float64)
    shared = matrices.shape[1] // change.keys.shape[1]
    for row, (source, target) in enumerate(zip(one.source.tolist(), one.target.tolist(), strict=True)):
        for head in range(matrices.shape[1]):
            now = torch.zeros_like(matrices[0, head]) if source < 0 else matrices[source, head].clone()
            key, query = (each[row, head // shared].double() for each in (change.keys, change.queries))
            if target >= 0:
                now *= change.decay[row, head].double()
                value = change.values[row, head].double()
                if change.rates is not None:
                    value = (value - key @ now) * change.rates[row, head].double()
                now = matrices[target, head] = now + torch.outer(key, value)
            out[row, head] = query @ now
    return out, matrices


@pytest.mark.parametrize("corrects", [True, False])
@pytest.mark.parametrize("size", some_of(["few", "odd"], ["odd heads", "usual", "one"]))
@pytest.mark.parametrize("name", ["torch", *INSTRUCTION_SETS])
def test_it_is_the_loop_over_rows(name: str, size: str, corrects: bool) -> None:
    matrices, change = made(*SIZES[size], corrects=corrects)
    wanted, left = expected(matrices, change)
    run = reference if name == "torch" else Native(name).run_chain
    got = run(matrices, chain(), change)
    torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(matrices.double(), left, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not INSTRUCTION_SETS, reason="the compiled kernels are not built here")
def test_what_does_not_fit_is_refused() -> None:
    native, one = Native(INSTRUCTION_SETS[0]), chain()
    matrices, change = made(4, 2, 16, 24, corrects=True)
    for wrong in (matrices.double(), matrices[:, :3], matrices[:2]):
        with pytest.raises((ValueError, IndexError)):
            native.run_chain(wrong, one, change)

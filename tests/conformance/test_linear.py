"""Every method of products of the catalogue that this machine can use: near float64, row by row, gates and tables."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from umbel import registry
from umbel.errors import UsageError
from umbel.kernels import reference
from umbel.linear.base import LinearMethod, Site
from umbel.linear.dense import DenseMethod

CPU = torch.device("cpu")
ERROR = 0.15  # relative, of what may change answers: weights in 4 bits are off by a tenth
# (outputs, inputs): a part of a panel, a layer, an odd number of inputs, which no method packs in pairs
SHAPES = [(34, 30), (130, 64), (66, 33)]
ROUNDED_TABLES = ("int4-head8",)
CASES = [(name, dtype) for name in registry.names("linear") for dtype in (torch.float32, torch.bfloat16)]
EACH = pytest.mark.parametrize(("name", "dtype"), CASES, ids=lambda v: str(v).removeprefix("torch."))


@cache
def made(name: str, dtype: torch.dtype) -> LinearMethod:
    """The method; a test of one that this machine lacks is skipped."""
    try:
        method: LinearMethod = registry.load("linear", name, Site(dtype, CPU, DenseMethod()))
    except UsageError as error:
        pytest.skip(str(error))
    return method


def values(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@EACH
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("biased", [False, True])
def test_products_are_near_those_of_float64(
    name: str, dtype: torch.dtype, outputs: int, inputs: int, biased: bool
) -> None:
    weight, x = values(outputs, inputs, seed=1, dtype=dtype), values(23, inputs, seed=2, dtype=dtype)
    bias = values(outputs, seed=3, dtype=dtype) if biased else None
    got = made(name, dtype).convert(weight, bias).apply(x)
    wanted = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    assert got.dtype == dtype and got.shape == wanted.shape and got.isfinite().all()
    exact = 2.0**-7 if dtype == torch.bfloat16 else 2.0**-18
    allowed = exact if registry.find("linear", name).exact else ERROR
    assert float((got.double() - wanted).std() / wanted.std()) < allowed


@EACH
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_a_gate_behind_the_product_is_that_of_the_reference(
    name: str, dtype: torch.dtype, outputs: int, inputs: int
) -> None:
    weight, x = values(outputs, inputs, seed=1, dtype=dtype), values(9, inputs, seed=2, dtype=dtype)
    bias, method = values(outputs, seed=3, dtype=dtype), made(name, dtype)
    got = method.convert(weight, bias, gated=True).apply(x)
    wanted = reference.gated_silu(method.convert(weight, bias).apply(x))
    assert got.shape == (9, outputs // 2)
    torch.testing.assert_close(got, wanted, rtol=2.0**-6 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


@EACH
def test_a_table_gives_the_rows_it_was_made_of(name: str, dtype: torch.dtype) -> None:
    weight, ids = values(203, 64, seed=1, dtype=dtype), torch.tensor([0, 202, 63, 64, 7, 7])
    table = made(name, dtype).convert_table(weight)
    rows, wanted = table.rows(ids), weight[ids]
    half = wanted.abs().amax(1, keepdim=True).float() / 254 if name in ROUNDED_TABLES else torch.zeros(len(ids), 1)
    assert ((rows - wanted).float().abs() <= half * 1.01 + wanted.float().abs() * (half > 0) * 2.0**-8).all()
    assert rows.dtype == dtype and table.rows(ids[:0]).shape == (0, 64)
    x = values(5, 64, seed=2, dtype=dtype)
    logits = table.logits(x)
    assert logits.dtype == torch.float32 and logits.shape == (5, 203)
    off = 0.05 if name not in ROUNDED_TABLES else 0.5  # of about 8
    torch.testing.assert_close(logits.double(), x.double() @ weight.double().T, rtol=2.0**-7, atol=off)


@pytest.mark.parametrize("name", registry.names("linear"))
def test_a_row_does_not_depend_on_its_neighbours(name: str) -> None:
    """To the last bit, in float32: what makes answers independent of the batch."""
    method, weight = made(name, torch.float32), values(130, 68, seed=1, dtype=torch.float32)
    x = values(40, 68, seed=2, dtype=torch.float32)
    for act in (method.convert(weight).apply, method.convert(weight, gated=True).apply):
        whole = act(x)
        assert all(torch.equal(act(x[i : i + n]), whole[i : i + n]) for i, n in ((0, 1), (7, 3), (20, 20)))

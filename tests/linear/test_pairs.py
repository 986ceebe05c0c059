"""What adapters add to runs of rows by one call has the bits of their products one by one."""

from __future__ import annotations

import pytest
import torch

from umbel.kernels.dispatch import kernels
from umbel.kernels.native.products import FloatProducts, PackedPair, has_products, pack
from umbel.linear.dense import DenseMethod
from umbel.linear.lora import AdaptedRun, LowRankProduct, add_adapters
from umbel.linear.packed import PackedMethod

INPUTS, OUTPUTS, ROWS = 70, 150, 37
RUNS = [(0, 1, 4), (1, 11, 5), (14, 30, 64), (30, 37, 131)]  # first row, the one behind the last, rank


def method_of(dtype: torch.dtype) -> PackedMethod:
    """Packed products, or the test is skipped."""
    if not has_products(dtype, kernels().name):
        pytest.skip(f"no products in {dtype} here")
    return PackedMethod(kernels().name, dtype)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_are_those_of_each_product_alone(dtype: torch.dtype, threads: int) -> None:
    method, draw = method_of(dtype), torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw).to(dtype)

    x, base = random(ROWS, INPUTS), random(ROWS, OUTPUTS)
    weights = [(random(rank, INPUTS), random(OUTPUTS, rank)) for _, _, rank in RUNS]
    made = [LowRankProduct(*map(method.convert, pair)) for pair in weights]
    runs = [AdaptedRun(begin, end, {"o": own}) for (begin, end, _), own in zip(RUNS, made, strict=True)]
    expected = base.clone()
    for run in runs:
        expected[run.begin : run.end] += run.products["o"].apply(x[run.begin : run.end])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        got = add_adapters(base.clone(), x, "o", [*runs, AdaptedRun(11, 14, {})])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(got, expected)
    plain = base.double()
    for (begin, end, _), (down, up) in zip(RUNS, weights, strict=True):
        plain[begin:end] += x[begin:end].double() @ down.double().t() @ up.double().t()
    assert (got.double() - plain).abs().max() <= plain.abs().max() * torch.finfo(dtype).eps * 4


def test_other_products_are_added_one_by_one() -> None:
    dense, x = DenseMethod(), torch.randn(3, 8)
    own = LowRankProduct(dense.convert(torch.randn(2, 8)), dense.convert(torch.randn(6, 2)))
    got = add_adapters(torch.zeros(3, 6), x, "o", [AdaptedRun(1, 3, {"o": own})])
    assert torch.equal(got[1:], own.apply(x[1:])) and not got[0].any()


def test_what_does_not_fit_is_refused() -> None:
    method_of(torch.float32)
    products = FloatProducts(kernels().name, torch.float32)
    x, out, down, up = torch.zeros(4, 8), torch.zeros(4, 6), pack(torch.zeros(2, 8)), pack(torch.zeros(6, 2))
    with pytest.raises(ValueError, match="rows 2 to 5"):
        products.add_pairs(x, out, [PackedPair(2, 5, down, up)])
    with pytest.raises(ValueError, match="do not fit 4 of"):
        products.add_pairs(x, torch.zeros(4, 7), [PackedPair(0, 4, down, up)])
    with pytest.raises(ValueError, match="2 numbers for a product of 3"):
        products.add_pairs(x, out, [PackedPair(0, 4, down, pack(torch.zeros(6, 3)))])
    with pytest.raises(ValueError, match="not side by side"):
        products.add_pairs(x.bfloat16(), out, [PackedPair(0, 4, down, up)])

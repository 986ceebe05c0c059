"""What adapters add to runs of rows by one call has the bits of their products one by one."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch

from umbel.kernels.dispatch import kernels
from umbel.kernels.native.products import FloatProducts, PackedPair, PackedPart, ProductForm, has_products, pack
from umbel.kernels.rows import gated_silu
from umbel.linear import packed
from umbel.linear.base import LinearMethod
from umbel.linear.dense import DenseMethod
from umbel.linear.lora import AdaptedGate, AdaptedRows, AdaptedRun, LowRankPart, LowRankProduct, add_adapters
from umbel.linear.packed import PackedMethod

INPUTS, OUTPUTS, ROWS = 70, 150, 37
# First row, the one behind the last, and of each part where its outputs begin, how many there are, and its rank.
RUNS = [
    (0, 1, [(0, OUTPUTS, 4)]),
    (1, 11, [(0, 70, 5), (70, 33, 16), (103, 47, 7)]),
    (14, 30, [(0, 70, 64), (103, 47, 64)]),
    (30, 37, [(0, OUTPUTS, 131)]),
]


def low_rank(
    method: LinearMethod, downs: list[torch.Tensor], ups: list[torch.Tensor], begins: list[int]
) -> LowRankProduct:
    """A product of parts, whose inner matrices have even numbers of rows as the loader makes them."""
    even = [torch.nn.functional.pad(down, (0, 0, 0, len(down) % 2)) for down in downs]
    ats = [0, *accumulate(map(len, even))]
    parts = tuple(
        LowRankPart(slice(at, at + up.shape[1]), slice(begin, begin + len(up)), method.convert(up))
        for at, begin, up in zip(ats, begins, ups, strict=False)
    )
    return LowRankProduct(method.convert(torch.cat(even)), parts)


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
    weights = [[(random(rank, INPUTS), random(n, rank)) for _, n, rank in parts] for _, _, parts in RUNS]
    made = [
        low_rank(method, [down for down, _ in pairs], [up for _, up in pairs], [begin for begin, _, _ in parts])
        for pairs, (_, _, parts) in zip(weights, RUNS, strict=True)
    ]
    runs = [AdaptedRun(begin, end, {"o": own}) for (begin, end, _), own in zip(RUNS, made, strict=True)]
    expected = base.clone()
    for run in runs:
        run.products["o"].add_to(expected[run.begin : run.end], x[run.begin : run.end])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        got = add_adapters(base.clone(), x, "o", [*runs, AdaptedRun(11, 14, {})])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(got, expected)
    plain = base.double()
    for (begin, end, parts), pairs in zip(RUNS, weights, strict=True):
        for (first, n, _), (down, up) in zip(parts, pairs, strict=True):
            plain[begin:end, first : first + n] += x[begin:end].double() @ down.double().t() @ up.double().t()
    assert (got.double() - plain).abs().max() <= plain.abs().max() * torch.finfo(dtype).eps * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at_a_time", [512, 8])
def test_what_is_added_before_a_gate_has_the_bits_of_the_gate_apart(
    dtype: torch.dtype, at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "AT_A_TIME", at_a_time)
    method, draw = method_of(dtype), torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw).to(dtype)

    half, x = OUTPUTS // 2, random(ROWS, INPUTS)
    base = method.convert(random(OUTPUTS, INPUTS), random(OUTPUTS), gated=True)
    begins = {"both": [0, half], "gate": [0], "up": [half]}
    made = {
        kind: low_rank(method, [random(5, INPUTS) for _ in at], [random(half, 5) for _ in at], at)
        for kind, at in begins.items()
    }
    runs = [
        AdaptedRun(0, 9, {"gate_up": made["both"]}),
        AdaptedRun(9, 12, {"o": made["up"]}),
        AdaptedRun(12, 20, {"gate_up": made["gate"]}),
        AdaptedRun(25, ROWS, {"gate_up": made["up"]}),
    ]
    got = AdaptedGate(base, "gate_up", AdaptedRows(tuple(runs))).apply(x)
    apart = gated_silu(add_adapters(base.before_gate(x), x, "gate_up", runs))
    plain = torch.cat([torch.arange(9, 12), torch.arange(20, 25)])
    touched = torch.ones(ROWS, dtype=torch.bool).index_fill_(0, plain, False)
    assert torch.equal(got[touched], apart[touched])
    assert torch.equal(got[plain], base.apply(x)[plain])
    assert not torch.equal(got[touched], base.apply(x)[touched])


def test_other_products_are_added_one_by_one() -> None:
    dense, x = DenseMethod(), torch.randn(3, 8)
    down, up = torch.randn(2, 8), torch.randn(4, 2)
    own = low_rank(dense, [down], [up], [1])
    got = add_adapters(torch.zeros(3, 6), x, "o", [AdaptedRun(1, 3, {"o": own})])
    assert torch.allclose(got[1:, 1:5], x[1:] @ down.t() @ up.t(), atol=1e-5)
    assert not got[0].any() and not got[:, 0].any() and not got[:, 5].any()


def test_what_does_not_fit_is_refused() -> None:
    method_of(torch.float32)
    products = FloatProducts(kernels().name, torch.float32)
    x, out, down, up = torch.zeros(4, 8), torch.zeros(4, 6), pack(torch.zeros(2, 8)), pack(torch.zeros(6, 2))
    whole = (PackedPart(0, 0, up),)
    with pytest.raises(ValueError, match="rows 2 to 5"):
        products.add_pairs(x, out, [PackedPair(2, 5, down, whole)])
    with pytest.raises(ValueError, match="do not fit 4 of"):
        products.add_pairs(torch.zeros(4, 7), out, [PackedPair(0, 4, down, whole)])
    with pytest.raises(ValueError, match="gives 6 of 5 outputs"):
        products.add_pairs(x, torch.zeros(4, 5), [PackedPair(0, 4, down, whole)])
    with pytest.raises(ValueError, match="gives 7 of 6 outputs"):
        products.add_pairs(x, out, [PackedPair(0, 4, down, (PackedPart(0, 1, up),))])
    for part in (PackedPart(0, 0, pack(torch.zeros(6, 3))), PackedPart(1, 0, up)):
        with pytest.raises(ValueError, match="takes 3 of 2 numbers"):
            products.add_pairs(x, out, [PackedPair(0, 4, down, (part,))])
    gated, x4 = pack(torch.zeros(6, 8), gated=True), torch.zeros(4, 8)
    for weight, form, added in ((gated, ProductForm.GATED_FLOAT32, out[:3]), (down, ProductForm.FLOAT32, out[:, :2])):
        with pytest.raises(ValueError, match=r"before (a|no) gate for"):
            products.multiply(x4, weight, None, form, added=added)
    with pytest.raises(ValueError, match="not side by side"):
        products.add_pairs(x.bfloat16(), out, [PackedPair(0, 4, down, whole)])


def test_parts_begin_where_a_processor_reads() -> None:
    method_of(torch.bfloat16)
    products = FloatProducts(kernels().name, torch.bfloat16)
    down, up = pack(torch.zeros(4, 8).bfloat16()), pack(torch.zeros(6, 2).bfloat16())
    x, out = torch.zeros(4, 8).bfloat16(), torch.zeros(4, 6).bfloat16()
    with pytest.raises(ValueError, match="numbers from 1 on"):
        products.add_pairs(x, out, [PackedPair(0, 4, down, (PackedPart(1, 0, up),))])

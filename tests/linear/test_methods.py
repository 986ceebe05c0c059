"""Every method of matrix products: against float64, rows that do not know their neighbours, tables at both ends."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.parameters import by_night
from umbel.kernels import reference
from umbel.kernels.native.calls import INSTRUCTION_SETS
from umbel.kernels.native.products import has_products, pack, panel_order, unpack
from umbel.linear.base import LinearMethod
from umbel.linear.dense import DenseMethod
from umbel.linear.int8 import Int8Method
from umbel.linear.packed import PackedMethod

PACKED = [name for name in INSTRUCTION_SETS if has_products(torch.bfloat16, name)]
LACKING = "the processor does not multiply in bfloat16, or nothing was compiled"
NEEDS_NATIVE = pytest.mark.skipif(not INSTRUCTION_SETS, reason="nothing was compiled")
NEEDS_PACKED = pytest.mark.skipif(not PACKED, reason=LACKING)
METHODS = [
    pytest.param("dense", torch.float32, id="dense-float32"),
    pytest.param("dense", torch.bfloat16, id="dense-bfloat16"),
    *(pytest.param(f"narrow {name}", torch.bfloat16, id=f"packed-bfloat16-{name}") for name in PACKED),
    *(
        pytest.param(f"packed {name}", torch.float32, id=f"packed-float32-{name}")
        for name in INSTRUCTION_SETS
        if has_products(torch.float32, name)
    ),
]
ROUNDED = [  # what is rounded more than the type of the rows says is held to its own definition
    *(
        pytest.param(name, dtype, id=f"int8-{name}-{dtype}".replace("torch.", ""), marks=NEEDS_NATIVE)
        for name in INSTRUCTION_SETS
        for dtype in (torch.float32, torch.bfloat16)
    ),
]
EACH = pytest.mark.parametrize(("name", "dtype"), METHODS)
# (outputs, inputs): parts of a panel, one panel and a bit, shapes of a real model's layer, inputs that fill no dword
SHAPES = [(2, 2), (34, 30), (64, 128), (130, 66), (1000, 576), (2048, 1024), (2, 1), (66, 33), (130, 171)]


def make(name: str) -> LinearMethod:
    if name in INSTRUCTION_SETS:
        return Int8Method(name, DenseMethod())
    if name == "dense":
        return DenseMethod()
    kind, _, instruction_set = name.partition(" ")
    return PackedMethod(instruction_set, torch.bfloat16 if kind == "narrow" else torch.float32)


def in_int8(t: Tensor) -> Tensor:
    """Each row as the nearest of 255 equal steps up to its largest value, in float64."""
    step = t.float().abs().amax(1, keepdim=True) / 127
    return torch.where(step > 0, (t.float() / step.clamp_min(1e-30)).round(), 0.0).double() * step.double()


def values(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def check(got: Tensor, truth: Tensor, scale: Tensor, dtype: torch.dtype) -> None:
    """Within the rounding of the result and of a float32 sum of terms whose sizes add up to `scale`."""
    step = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-23
    assert ((got.double() - truth).abs() <= step * truth.abs() + 2.0**-19 * scale + 1e-30).all()


@EACH
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("biased", [False, True])
def test_products(name: str, dtype: torch.dtype, outputs: int, inputs: int, biased: bool) -> None:
    weight, x = values(outputs, inputs, seed=1, dtype=dtype), values(23, inputs, seed=2, dtype=dtype)
    bias = values(outputs, seed=3, dtype=dtype) if biased else None
    got = make(name).convert(weight, bias).apply(x)
    extra = bias.double() if bias is not None else torch.zeros(outputs, dtype=torch.float64)
    assert got.dtype == dtype
    scale = x.double().abs() @ weight.double().abs().T + extra.abs()
    check(got, x.double() @ weight.double().T + extra, scale, dtype)


@pytest.mark.parametrize("name", [name for name in PACKED if name in ("avx2", "avx512")])
@pytest.mark.parametrize(("outputs", "inputs"), [(130, 66), (66, 33)])
def test_what_is_widened_has_the_bits_of_float32(name: str, outputs: int, inputs: int) -> None:
    """Where bfloat16 is not multiplied as such: few rows read the weights as they are, many a widened panel."""
    weight, x = (values(n, inputs, seed=n, dtype=torch.bfloat16) for n in (outputs, 80))
    narrow, wide = PackedMethod(name, torch.bfloat16), PackedMethod(name, torch.float32)
    expected = wide.convert_table(weight.float()).logits(x.float())
    table = narrow.convert_table(weight)
    for n in (1, 2, 3, 6, 7, 13, 35, 36, 37, 80):
        assert torch.equal(table.logits(x[:n]), expected[:n])


@pytest.mark.parametrize(("name", "dtype"), ROUNDED)
@pytest.mark.parametrize(
    ("outputs", "inputs"), [(34, 32), (64, 128), (130, 68), (2048, 1024), (66, 33), (130, 171), (34, 30)]
)
@pytest.mark.parametrize("biased", [False, True])
def test_int8_is_the_product_of_what_was_rounded(
    name: str, dtype: torch.dtype, outputs: int, inputs: int, biased: bool
) -> None:
    """Against float64 on operands rounded here; a value half between two steps may be rounded either way."""
    weight, x = values(outputs, inputs, seed=1, dtype=dtype), values(23, inputs, seed=2, dtype=dtype)
    x[3] = 0
    bias = values(outputs, seed=3, dtype=dtype) if biased else None
    got = make(name).convert(weight, bias).apply(x)
    extra = bias.double() if bias is not None else torch.zeros(outputs, dtype=torch.float64)
    truth = in_int8(x) @ in_int8(weight).T + extra
    halves = x.float().abs().amax(1, keepdim=True) / 127 * weight.abs().amax().double() * 2
    check(got, truth, truth.abs() + halves * 2.0**19, dtype)
    exact = x.double() @ weight.double().T + extra
    assert (got.double() - exact).std() < 0.02 * (exact - extra).std()


@pytest.mark.parametrize(("name", "dtype"), ROUNDED)
def test_int8_of_rows_that_are_not_finite(name: str, dtype: torch.dtype) -> None:
    weight, x = values(70, 36, seed=1, dtype=dtype), values(5, 36, seed=2, dtype=dtype)
    linear = make(name).convert(weight)
    whole = linear.apply(x)
    x[1, 4], x[3, 35] = torch.nan, -torch.inf
    got = linear.apply(x)
    assert got[[1, 3]].isnan().all() and torch.equal(got[[0, 2, 4]], whole[[0, 2, 4]])


@pytest.mark.skipif(len(INSTRUCTION_SETS) < 2, reason="fewer than two instruction sets to compare")
def test_int8_is_the_same_on_every_instruction_set() -> None:
    """Sums are exact, and what is around them is rounded in the same places."""
    weight, x = values(200, 96, seed=1, dtype=torch.float32), values(40, 96, seed=2, dtype=torch.float32)
    first, *others = (make(name).convert(weight).apply(x) for name in INSTRUCTION_SETS)
    assert all(torch.equal(first, other) for other in others)


@EACH
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_a_gate_behind_the_product_rounds_like_one_apart(
    name: str, dtype: torch.dtype, outputs: int, inputs: int
) -> None:
    weight, x = values(outputs, inputs, seed=1, dtype=dtype), values(9, inputs, seed=2, dtype=dtype)
    bias, method = values(outputs, seed=3, dtype=dtype), make(name)
    got = method.convert(weight, bias, gated=True).apply(x)
    wanted = reference.gated_silu(method.convert(weight, bias).apply(x))
    assert got.shape == (9, outputs // 2)
    torch.testing.assert_close(got, wanted, rtol=2.0**-7 if dtype == torch.bfloat16 else 2e-6, atol=1e-6)


@EACH
def test_tables_are_looked_up_and_multiplied_with(name: str, dtype: torch.dtype) -> None:
    weight, x = values(1003, 64, seed=1, dtype=dtype), values(5, 64, seed=2, dtype=dtype)
    table, ids = make(name).convert_table(weight), torch.tensor([0, 1002, 63, 64, 65, 7, 7])
    assert torch.equal(table.rows(ids), weight[ids])
    logits = table.logits(x)
    assert logits.dtype == torch.float32 and logits.shape == (5, 1003)
    check(logits, x.double() @ weight.double().T, x.double().abs() @ weight.double().abs().T, dtype)
    room = torch.full((5, 1003), torch.nan)
    assert torch.equal(table.logits(x, room), logits)
    assert table.logits(x[:0]).shape == (0, 1003) and table.rows(ids[:0]).shape == (0, 64)


@pytest.mark.parametrize(("name", "dtype"), [p for p in METHODS if p.id != "dense-bfloat16"] + ROUNDED)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("outputs", "inputs"), by_night([(130, 68)], [(1024, 512)]))
def test_a_row_does_not_depend_on_its_neighbours(
    name: str, dtype: torch.dtype, threads: int, outputs: int, inputs: int
) -> None:
    """To the last bit, however many threads there are; torch promises it for float32 only."""
    method, weight = make(name), values(outputs, inputs, seed=1, dtype=dtype)
    acts = [method.convert(weight).apply, method.convert(weight, gated=True).apply]
    if dtype != torch.bfloat16 or name not in INSTRUCTION_SETS:  # int8, whose tables are made by torch here
        acts.append(method.convert_table(weight).logits)
    x = values(1100, inputs, seed=2, dtype=dtype)
    whole = [act(x) for act in acts]
    torch.set_num_threads(threads)
    sizes = (1, 6, 11, 513) if name in INSTRUCTION_SETS else (*range(1, 20), 31, 64, 129, 511, 513, 1023)
    for size in sizes:
        for begin in (0, 1, 1100 - size):
            for act, all_rows in zip(acts, whole, strict=True):
                assert torch.equal(act(x[begin : begin + size]), all_rows[begin : begin + size]), (size, begin)


@NEEDS_PACKED
@settings(max_examples=40)
@given(outputs=st.integers(1, 200), inputs=st.integers(1, 40), seed=st.integers(0, 999), gated=st.booleans())
def test_packing_keeps_every_weight_once(outputs: int, inputs: int, seed: int, gated: bool) -> None:
    weight = values(2 * outputs, 2 * inputs, seed=seed, dtype=torch.bfloat16)
    packed = pack(weight, gated=gated)
    kept, given_ = (t.view(torch.int16).flatten().sort().values for t in (packed.panels, weight))
    assert torch.equal(kept[kept != 0], given_[given_ != 0])
    if not gated:
        assert torch.equal(unpack(packed, torch.arange(2 * outputs), torch.bfloat16), weight)
    order = panel_order(torch.arange(1, 2 * outputs + 1), gated=gated)
    assert len(order) == packed.panels.shape[0] * 64 and sorted(order[order > 0].tolist()) == list(
        range(1, 2 * outputs + 1)
    )


@pytest.mark.parametrize("name", PACKED)
def test_values_that_are_not_finite_stay_in_their_row(name: str) -> None:
    weight, x = values(70, 34, seed=1, dtype=torch.bfloat16), values(14, 34, seed=2, dtype=torch.bfloat16)
    linear = make(f"narrow {name}").convert(weight)
    whole = linear.apply(x)
    x[3, 5], x[8, 0] = torch.nan, torch.inf
    got = linear.apply(x)
    assert got[3].isnan().all() and not got[8].isfinite().any()
    others = [i for i in range(14) if i not in (3, 8)]
    assert torch.equal(got[others], whole[others])


@NEEDS_PACKED
def test_what_does_not_fit_is_refused() -> None:
    method = make(f"narrow {PACKED[0]}")
    with pytest.raises(ValueError, match="cannot be packed"):
        pack(torch.zeros(6, 4, dtype=torch.bfloat16).t())
    with pytest.raises(ValueError, match="cannot be packed"):
        pack(torch.zeros(5, 4, dtype=torch.bfloat16), gated=True)
    linear = method.convert(torch.zeros(4, 6, dtype=torch.bfloat16))
    for wrong in (torch.zeros(2, 6), torch.zeros(2, 4, dtype=torch.bfloat16)):
        with pytest.raises(ValueError, match="does not fit"):
            linear.apply(wrong)
    with pytest.raises(IndexError):
        method.convert_table(torch.zeros(4, 6, dtype=torch.bfloat16)).rows(torch.tensor([4]))

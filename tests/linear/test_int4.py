"""int4 products: rounding against all sixteen values of each weight, products against those of the floats."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from umbel.errors import UsageError
from umbel.ir.int4_format import LOADING
from umbel.kernels.int4 import Int4Weight, pack_nibbles, round_to_int4, stack
from umbel.kernels.rows import gated_silu
from umbel.linear.dense import DenseLinear, DenseMethod
from umbel.linear.int4 import FEW_ROWS, Int4Linear, Int4Method
from umbel.linear.pick import pick_linear

CPU = torch.device("cpu")


def random(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shift", [0.0, 2.0, -2.0], ids=["around zero", "above", "below"])
@pytest.mark.parametrize(("outputs", "inputs", "group"), [(3, 2, 2), (7, 24, 8), (20, 256, 128)])
def test_rounding_takes_the_nearest(outputs: int, inputs: int, group: int, shift: float) -> None:
    weight = random(outputs, inputs) + shift
    packed = round_to_int4(weight, group)
    got = packed.floats(torch.float32).double().numpy()
    for o in range(outputs):
        for g in range(inputs // group):
            own = weight[o, g * group : (g + 1) * group].double().numpy()
            low, high = min(own.min(), 0.0), max(own.max(), 0.0)
            step, zero = float(packed.scales[o, g]), int(packed.zeros[o, g])
            assert step == pytest.approx((high - low) / 15, rel=2**-8)
            menu = (np.arange(16) - zero) * step
            assert 0.0 in menu and menu.min() <= low + step and menu.max() >= high - step
            best = np.abs(own[:, None] - menu).min(1)
            assert np.abs(own - got[o, g * group : (g + 1) * group]) == pytest.approx(best, abs=1e-6 * step)


def test_rounding_of_zeros_and_extremes() -> None:
    weight = torch.tensor([[0.0, 0.0, 3e38, -3e38], [1e-42, 0.0, 5.0, 5.0]])
    back = round_to_int4(weight, 2).floats(torch.float32)
    assert torch.isfinite(back).all() and back[0, :2].tolist() == [0.0, 0.0]
    assert back[0, 2:].tolist() == pytest.approx([3e38, -3e38], rel=0.1)
    assert back[1, 2:].tolist() == pytest.approx([5.0, 5.0], rel=2**-8)
    for group in (1, 3, 8):
        with pytest.raises(ValueError, match=f"groups of {group}"):
            round_to_int4(weight, group)


def test_groups_are_powers_of_two_that_divide() -> None:
    assert [LOADING.group_of(n) for n in (4096, 11008, 128, 192, 172, 6, 7)] == [128, 128, 128, 64, 4, 2, 1]


def test_nibbles_are_in_order() -> None:
    values = torch.arange(16).view(2, 8)
    assert pack_nibbles(values).tolist() == [[0x10, 0x32, 0x54, 0x76], [0x98, 0xBA, 0xDC, 0xFE]]


def test_stacks_are_of_equal_groups() -> None:
    one, other = round_to_int4(random(3, 16), 8), round_to_int4(random(5, 16, seed=1), 8)
    both = stack([one, other]).floats(torch.float32)
    assert torch.equal(both, torch.cat([one.floats(torch.float32), other.floats(torch.float32)]))
    with pytest.raises(ValueError, match="same inputs and groups"):
        stack([one, round_to_int4(random(3, 16), 4)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_processor_gets_the_floats(dtype: torch.dtype) -> None:
    method, weight, bias = Int4Method(dtype, DenseMethod(), rounds=True), random(12, 32).to(dtype), random(1, 12)[0]
    packed = round_to_int4(weight, 32)
    for given in (weight, packed):
        made = method.convert(given, bias.to(dtype))
        assert isinstance(made, DenseLinear) and torch.equal(made.weight, packed.floats(dtype))
        assert method.convert(given, gated=True).is_gated
    assert torch.equal(method.convert_table(weight).rows(torch.tensor([1])), weight[1:2])


def test_floats_of_a_packed_model_stay() -> None:
    weight = random(12, 32)
    assert Int4Method(torch.float32, DenseMethod(), rounds=False).convert(weight).weight is weight
    odd = random(12, 7)
    assert Int4Method(torch.float32, DenseMethod(), rounds=True).convert(odd).weight is odd


@pytest.mark.parametrize("rows", [3, FEW_ROWS + 1])
@pytest.mark.parametrize("has_kernels", [False, True], ids=["torch", "kernels"])
def test_what_a_gpu_does(rows: int, has_kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Triton (here in its interpreter, where there is no GPU), and without."""
    if has_kernels:
        pytest.importorskip("triton", reason="Triton is not installed here")
    else:
        monkeypatch.setattr("umbel.linear.int4.gpu_kernels", lambda: None)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    weight = round_to_int4(random(24, 64), 32).to(device)
    x, bias = random(rows, 64, seed=2).to(device), random(1, 24, seed=3)[0].to(device)
    product = x.double() @ weight.floats(torch.float32).double().T
    torch.testing.assert_close(
        Int4Linear(weight, None, is_gated=False).apply(x).double(), product, rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(
        Int4Linear(weight, bias, is_gated=False).apply(x).double(), product + bias, rtol=1e-5, atol=1e-4
    )
    gated = Int4Linear(weight, bias, is_gated=True).apply(x)
    assert gated.shape == (rows, 12)
    torch.testing.assert_close(gated, gated_silu((product + bias).float()), rtol=1e-5, atol=1e-3)


def test_it_is_picked_by_name_and_for_packed_weights() -> None:
    asked, own = pick_linear(torch.float32, CPU, "int4"), pick_linear(torch.float32, CPU, packed=True)
    assert isinstance(asked, Int4Method) and asked.rounds and isinstance(own, Int4Method) and not own.rounds
    with pytest.raises(UsageError, match="int4 already"):
        pick_linear(torch.float32, CPU, "int8", packed=True)


def test_it_moves_as_a_whole() -> None:
    weight = Int4Weight(*(torch.zeros(2, 2, dtype=torch.uint8) for _ in range(3)), 2).to(torch.device("meta"))
    assert weight.device.type == "meta" and weight.zeros.is_meta and weight.scales.is_meta and weight.shape == (2, 4)

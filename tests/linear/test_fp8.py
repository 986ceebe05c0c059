"""fp8 products against their definition in float64, with e4m3 rounded by a table of all its values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from umbel.errors import UsageError
from umbel.kernels.reference import round_to_fp8
from umbel.kernels.rows import gated_silu
from umbel.linear.dense import DenseMethod
from umbel.linear.fp8 import Fp8Method
from umbel.linear.pick import pick_linear

CPU = torch.device("cpu")
METHOD = Fp8Method(CPU, DenseMethod())


def every_e4m3() -> np.ndarray:
    """All finite values, from the definition: 4 bits of exponent with a bias of 7, 3 of fraction, no infinities."""
    found = [
        (-1) ** sign * (2.0**-6 * f / 8 if e == 0 else 2.0 ** (e - 7) * (1 + f / 8))
        for sign in (0, 1)
        for e in range(16)
        for f in range(8)
        if (e, f) != (15, 7)
    ]
    return np.unique(np.array(found))


def nearest(x: Tensor) -> np.ndarray:
    """Rows scaled so that the largest value is 448, each as the nearest e4m3 (the even one of two), scaled back."""
    wide, table = x.double().numpy(), every_e4m3()
    scale = np.float32(x.float().abs().amax(1, keepdim=True).numpy() / np.float32(448)).astype(np.float64)
    scale[scale == 0] = 1
    scaled = (x.float().numpy() / scale.astype(np.float32)).astype(np.float64)
    at = np.clip(np.searchsorted(table, scaled), 1, len(table) - 1)
    low, high = table[at - 1], table[at]
    first = (scaled - low < high - scaled) | ((scaled - low == high - scaled) & (at % 2 == 1))
    assert wide.shape == scaled.shape
    return np.where(first, low, high) * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("outputs", "inputs"), [(2, 2), (34, 30), (130, 66), (64, 512)])
def test_products(dtype: torch.dtype, biased: bool, outputs: int, inputs: int) -> None:
    generator = torch.Generator().manual_seed(outputs)
    weight, x = (torch.randn(n, inputs, generator=generator).to(dtype) for n in (outputs, 9))
    bias = torch.randn(outputs, generator=generator).to(dtype) if biased else None
    truth = torch.from_numpy(nearest(x) @ nearest(weight).T) + (0.0 if bias is None else bias.double())
    got = METHOD.convert(weight, bias).apply(x)
    assert got.dtype == dtype
    step = 2.0**-8 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(got.double(), truth, rtol=step, atol=1e-4)
    gated = METHOD.convert(weight, bias, gated=True).apply(x)
    assert torch.equal(gated, gated_silu(got))


def test_rows_of_zeros_and_large_values() -> None:
    x = torch.tensor([[0.0, 0.0], [3e38, -1.0], [1e-30, 2e-30]])
    rounded, scale = round_to_fp8(x)
    assert torch.isfinite(rounded.float()).all() and torch.isfinite(scale).all()
    back = rounded.float() * scale.unsqueeze(1)
    assert back[0].tolist() == [0, 0] and back[1, 0] == pytest.approx(3e38) and back[2, 1] == pytest.approx(2e-30)


def test_it_is_picked_by_name() -> None:
    assert isinstance(pick_linear(torch.bfloat16, CPU, "fp8"), Fp8Method)
    assert torch.equal(METHOD.convert_table(torch.eye(3)).rows(torch.tensor([1])), torch.eye(3)[1:2])


def test_it_has_to_be_allowed() -> None:
    from umbel.config import EngineConfig

    with pytest.raises(UsageError, match="allow-lossy"):
        EngineConfig("demo", linear="fp8")
    assert EngineConfig("demo", linear="fp8", allow_lossy=True).linear == "fp8"

"""Products by expert against a loop over experts, and sums: on a GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed here")

from umbel.kernels import reference
from umbel.kernels.triton.experts import gated_clamped, multiply_by_expert, weighted_sum

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("counts", [[5], [0, 0, 3], [1, 33, 0, 64, 7], [0], [32, 32], [1] * 9])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (70, 33), (1, 130)])
def test_products(counts: list[int], outputs: int, inputs: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(sum(counts))
    x = torch.randn((sum(counts), inputs), generator=generator).to(dtype).to(DEVICE)
    weights = torch.randn((len(counts), outputs, inputs), generator=generator).to(dtype).to(DEVICE)
    ends = torch.tensor(counts).cumsum(0).to(DEVICE)
    bias = torch.randn((len(counts), outputs), generator=generator).to(dtype).to(DEVICE) if outputs > 1 else None
    got = multiply_by_expert(x, weights, ends, bias)
    wanted = reference.by_expert(x.double(), weights.double(), ends, None if bias is None else bias.double())
    assert got.dtype == dtype and got.shape == wanted.shape
    # The interpreter cuts float32 down to bfloat16 where a GPU rounds.
    tolerance = 1e-5 if dtype == torch.float32 else 2.0**-7
    torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance * inputs**0.5)


def test_what_does_not_fit_is_refused() -> None:
    x, weights = torch.zeros(4, 8, device=DEVICE), torch.zeros(2, 3, 8, device=DEVICE)
    ends = torch.tensor([2, 4], device=DEVICE)
    for wrong in ((x[:, 1:], weights, ends), (x, weights, ends[:1]), (x.half(), weights, ends)):
        with pytest.raises(ValueError, match="rows of"):
            multiply_by_expert(*wrong)
    with pytest.raises(ValueError, match="a bias"):
        multiply_by_expert(x, weights, ends, weights[:, :2, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("rows", "width"), [(0, 4), (1, 3), (9, 64), (3, 1100)])
def test_clamped_gates(rows: int, width: int, dtype: torch.dtype) -> None:
    x = 5 * torch.randn((rows, 2 * width), generator=torch.Generator().manual_seed(width))
    x = x.to(dtype).to(DEVICE)
    got = gated_clamped(x, 1.7, 4.0)
    tolerance = 1e-5 if dtype == torch.float32 else 2.0**-7
    torch.testing.assert_close(got, reference.gated_clamped(x, 1.7, 4.0), rtol=tolerance, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("rows", "each", "width"), [(1, 1, 3), (7, 8, 64), (5, 2, 1500), (0, 4, 8)])
def test_sums(rows: int, each: int, width: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(rows)
    parts = torch.randn((rows * each, width), generator=generator).to(dtype).to(DEVICE)
    places = torch.randperm(rows * each, generator=generator).view(rows, each).to(DEVICE)
    shares = torch.rand((rows, each), generator=generator).to(DEVICE)
    got = weighted_sum(parts, places, shares)
    assert got.dtype == dtype
    wanted = (parts[places].double() * shares.double().unsqueeze(-1)).sum(1)
    tolerance = 1e-5 if dtype == torch.float32 else 2.0**-7
    for result in (got, reference.weighted_sum(parts, places, shares)):
        torch.testing.assert_close(result.double(), wanted, rtol=tolerance, atol=1e-5)

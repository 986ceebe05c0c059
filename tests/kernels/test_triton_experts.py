"""Products by expert against a loop over experts: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed here")

from umbel.kernels import reference
from umbel.kernels.triton.experts import multiply_by_expert

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("counts", [[5], [0, 0, 3], [1, 33, 0, 64, 7], [0], [32, 32]])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (70, 33), (1, 130)])
def test_products(counts: list[int], outputs: int, inputs: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(sum(counts))
    x = torch.randn((sum(counts), inputs), generator=generator).to(dtype).to(DEVICE)
    weights = torch.randn((len(counts), outputs, inputs), generator=generator).to(dtype).to(DEVICE)
    got = multiply_by_expert(x, weights, np.array(counts))
    wanted = reference.by_expert(x.double(), weights.double(), counts)
    assert got.dtype == dtype and got.shape == wanted.shape
    # The interpreter cuts float32 down to bfloat16 where a GPU rounds.
    tolerance = 1e-5 if dtype == torch.float32 else 2.0**-7
    torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance * inputs**0.5)


def test_wrong_counts_are_refused() -> None:
    x, weights = torch.zeros(4, 8, device=DEVICE), torch.zeros(2, 3, 8, device=DEVICE)
    for counts in ([2, 1], [4], [2, 3]):
        with pytest.raises(ValueError, match="rows of"):
            multiply_by_expert(x, weights, np.array(counts))

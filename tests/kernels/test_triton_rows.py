"""Operations on rows for GPUs against their meaning in torch: on a GPU where there is one, else in the interpreter,
which cuts float32 down to bfloat16 where a GPU rounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed here")

from torch import Tensor

from tests.parameters import few_of
from umbel.kernels import reference
from umbel.kernels.place import Place
from umbel.kernels.rotation import HeadRotation
from umbel.kernels.triton.rows import TritonRows
from umbel.models.rotary import rotary_angles

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KERNELS = TritonRows()
KINDS = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
EPS = 1e-6


def values(*shape: int, seed: int, scale: float = 3.0, dtype: torch.dtype = torch.float32) -> Tensor:
    found = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    return found.to(dtype).to(DEVICE)


def close(got: Tensor, wanted: Tensor, steps: int = 3) -> None:
    """Equal up to a few units in the last place."""
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    tolerance = 2e-6 if got.dtype == torch.float32 else steps * 2.0**-7
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


@KINDS
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 64), (7, 70), (2, 3000), (0, 8)])
def test_norms(dtype: torch.dtype, rows: int, width: int) -> None:
    x, delta = (values(rows, width, seed=i, dtype=dtype) for i in range(2))
    weight = values(width, seed=2, dtype=dtype)
    close(KERNELS.rms_norm(x, weight, EPS), reference.rms_norm(x, weight, EPS))
    total, normed = KERNELS.add_rms_norm(x, delta, weight, EPS)
    close(total, x + delta)
    close(normed, reference.rms_norm(total, weight, EPS))


@KINDS
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (4, 33), (2, 1500), (0, 8)])
def test_gated_activation(dtype: torch.dtype, rows: int, width: int) -> None:
    gate_up = values(rows, 2 * width, seed=rows, scale=8.0, dtype=dtype)
    close(KERNELS.gated_silu(gate_up), reference.gated_silu(gate_up))


@KINDS
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("heads", "dim"), few_of([((9, 3), 24), ((1, 1), 2)], [((4, 2), 64), ((16, 8), 128)]))
def test_heads_are_rotated(dtype: torch.dtype, heads: tuple[int, int], dim: int, normed: bool) -> None:
    n_q, n_k = heads
    x = values(5, n_q + 2 * n_k, dim, seed=dim, dtype=dtype)
    frequencies = 10.0 ** -torch.linspace(0, 4, dim // 2, device=DEVICE)
    angles = rotary_angles(torch.arange(5, device=DEVICE) * 37, frequencies, dtype)
    norms = (values(dim, seed=1, dtype=dtype), values(dim, seed=2, dtype=dtype)) if normed else None
    rotation = HeadRotation(n_q, n_k, angles, norms, EPS)
    wanted = torch.cat(reference.norm_and_rotate(x, rotation), 1)
    for is_fp8 in (False, True):
        got, place, apart = x.clone(), *(place_of(n_k, dim, dtype, is_fp8=is_fp8) for _ in range(2))
        KERNELS.rotate(got, rotation, place)
        step = 2e-6 if dtype == torch.float32 else 2.0**-5
        assert ((got - wanted).abs() <= step * wanted.abs().amax(-1, keepdim=True)).all()
        assert torch.equal(got[:, n_q + n_k :], x[:, n_q + n_k :])
        # Keys and values are in their slots, as torch stores them; the other slots are as they were.
        apart.write(got[:, n_q : n_q + n_k], got[:, n_q + n_k :])
        for stored, by_torch in zip(tensors(place), tensors(apart), strict=True):
            assert torch.equal(stored, by_torch) and stored.any()


def tensors(place: Place) -> list[Tensor]:
    """Keys, values and scales, as float32."""
    return [tensor.float() for tensor in (place.keys, place.values, *(place.scales or ()))]


def test_places_that_do_not_fit_are_refused() -> None:
    x, angles = values(5, 7, 20, seed=1), rotary_angles(torch.arange(5), torch.ones(10), torch.float32)
    rotation, place = HeadRotation(3, 2, tuple(a.to(DEVICE) for a in angles), None, EPS), place_of(2, 20, torch.float32)
    with pytest.raises(ValueError, match="side by side"):
        KERNELS.rotate(x, rotation, replace(place, keys=place.keys[:, ::2], values=place.values[:, ::2]))
    with pytest.raises(ValueError, match="5 rows of 2 heads of 20"):
        KERNELS.rotate(x, rotation, replace(place, slots=place.slots[:4]))


@KINDS
def test_fp8_is_rounded_as_the_reference_rounds(dtype: torch.dtype) -> None:
    """Over many powers of ten within a vector, zeros and the smallest numbers included."""
    k, v = (values(40, 2, 64, seed=i, dtype=dtype) for i in range(2))
    k *= torch.logspace(-6, 3, 64, device=DEVICE).to(dtype)
    v[3], v[4] = 0, v[4] * 1e-30
    for rows in (k.view(-1, 64), torch.cat((k.view(8, -1), v.view(8, -1)), 1)):
        for got, wanted in zip(KERNELS.round_rows(rows), reference.round_to_fp8(rows), strict=True):
            assert torch.equal(got.float(), wanted.float())
    slots = torch.randperm(64)[:40].to(DEVICE)
    place, apart = (place_of(2, 64, dtype, slots, is_fp8=True) for _ in range(2))
    angles = torch.ones(40, 1, 32, dtype=dtype, device=DEVICE), torch.zeros(40, 1, 32, dtype=dtype, device=DEVICE)
    KERNELS.rotate(torch.cat((k, k, v), 1), HeadRotation(2, 2, angles, None, EPS), place)  # by nothing
    apart.write(k, v)
    for stored, by_torch in zip(tensors(place), tensors(apart), strict=True):
        assert torch.equal(stored, by_torch)


def place_of(n_kv: int, dim: int, dtype: torch.dtype, slots: Tensor | None = None, *, is_fp8: bool = False) -> Place:
    """64 empty slots; five rows go to some of them unless `slots` are given."""
    kind = torch.float8_e4m3fn if is_fp8 else dtype
    keys, values_ = (torch.zeros(n_kv, 64, dim, device=DEVICE).to(kind) for _ in range(2))
    scales = (torch.zeros(n_kv, 64, device=DEVICE), torch.zeros(n_kv, 64, device=DEVICE)) if is_fp8 else None
    return Place(keys, values_, torch.tensor([7, 1, 63, 20, 21], device=DEVICE) if slots is None else slots, scales)


def test_what_the_kernels_take() -> None:
    x = values(4, 8, seed=0)
    assert KERNELS.takes(x, x) and not KERNELS.takes(x, x.to(torch.bfloat16))
    assert not KERNELS.takes(x.t()) and not KERNELS.takes(x.double())

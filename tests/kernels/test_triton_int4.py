"""int4 products and widening against their definition: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed here")

from tests.parameters import few_of
from umbel.kernels import reference
from umbel.kernels.int4 import Int4Weight
from umbel.kernels.triton.int4 import multiply_int4, tile_bytes, widen

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPES = [(64, 128, 128), (70, 34, 2), (1, 130, 130), (130, 256, 32), (9, 172, 4), (65, 1536, 64), (3, 40, 16)]


def random_weight(outputs: int, inputs: int, group: int) -> Int4Weight:
    """Random nibbles, scales in 16 bits of both signs, zero points of all sixteen values."""
    generator = torch.Generator().manual_seed(outputs * inputs)
    groups = -(-inputs // group)
    nibbles = torch.randint(0, 256, (outputs, inputs // 2), generator=generator, dtype=torch.uint8)
    zeros = torch.randint(0, 16, (outputs, groups), generator=generator, dtype=torch.uint8)
    scales = torch.randn(outputs, groups, generator=generator).to(torch.float16)
    return Int4Weight(nibbles, scales, zeros, group).to(DEVICE)


def meaning(weight: Int4Weight) -> torch.Tensor:
    """Number by number, in float64."""
    outputs, inputs = weight.shape
    nibbles, scales, zeros = (t.tolist() for t in (weight.nibbles, weight.scales.double(), weight.zeros))
    table = [
        [
            ((nibbles[o][i // 2] >> (4 if i % 2 else 0)) % 16 - zeros[o][i // weight.group])
            * scales[o][i // weight.group]
            for i in range(inputs)
        ]
        for o in range(outputs)
    ]
    return torch.tensor(table, dtype=torch.float64, device=DEVICE)


@pytest.mark.parametrize(("outputs", "inputs", "group"), SHAPES)
def test_widening(outputs: int, inputs: int, group: int) -> None:
    weight = random_weight(outputs, inputs, group)
    exact = meaning(weight)
    plain = reference.from_int4(weight.nibbles, weight.scales, weight.zeros, group)
    assert plain.dtype == torch.float32 and torch.equal(plain.double(), exact)
    assert torch.equal(widen(weight, torch.float32).double(), exact)
    narrow = widen(weight, torch.bfloat16)
    # The interpreter cuts float32 down to bfloat16 where a GPU rounds.
    torch.testing.assert_close(narrow.double(), exact, rtol=2.0**-7, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("rows", few_of([0, 1, 17], [70]))
@pytest.mark.parametrize(("outputs", "inputs", "group"), SHAPES)
def test_products(outputs: int, inputs: int, group: int, rows: int, dtype: torch.dtype) -> None:
    weight = random_weight(outputs, inputs, group)
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows)).to(dtype).to(DEVICE)
    exact = meaning(weight).T
    got, wanted = multiply_int4(x, weight), x.double() @ exact
    assert got.dtype == dtype and got.shape == (rows, outputs)
    # In bfloat16 each weight is off by a step at most (see above), and so is the result.
    step = 1e-5 if dtype == torch.float32 else 2.0**-7
    assert ((got.double() - wanted).abs() <= step * (x.double().abs() @ exact.abs() + wanted.abs())).all()


def test_tiles_stay_within_a_group() -> None:
    assert [tile_bytes(group) for group in (256, 128, 64, 32, 96, 4)] == [
        (64, True), (64, True), (32, True), (16, True), (16, True), (32, False)
    ]  # fmt: skip


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="for weights"):
        multiply_int4(torch.zeros(2, 30, device=DEVICE), random_weight(4, 32, 32))

"""Products of rows with int4 weights on a GPU, and the widening of such weights, for rows too many for the first.

A program of the product has a tile of rows, some outputs and a part of the inputs. It reads bytes of two nibbles each,
so that it multiplies twice: the even inputs with the low halves, the odd ones with the high ones. Every weight is
rounded to the type of the rows before it is multiplied. Where rows and outputs make few programs, inputs are split
among more of them and the parts added up in a fixed order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from umbel.kernels.int4 import Int4Weight

OUTPUTS = 64  # of a tile
BYTES = 64  # of an output's nibbles that a tile reads at a time: 128 inputs
PROGRAMS = 264
"""Programs that keep a GPU busy: two for each of the 132 processors of an H100 or H200. A guess until measured."""


@triton.jit
def _weights(
    packed, scales, zeros, column, begin, n_outputs, n_bytes, n_groups, group,
    BYTES: tl.constexpr, ONE: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """The weights of some outputs at the bytes from `begin` on, of low and of high halves (two of `[outputs, BYTES]`),
    as `TYPE`. `ONE`: all of these bytes are of one group."""
    byte, wanted = begin + tl.arange(0, BYTES), (column < n_outputs)[:, None]
    here = wanted & (byte < n_bytes)[None, :]
    pair = tl.load(packed + column[:, None].to(tl.int64) * n_bytes + byte[None, :], mask=here, other=0)
    if ONE:
        place, there = column[:, None] * n_groups + begin * 2 // group, wanted
    else:
        place, there = column[:, None] * n_groups + (byte * 2 // group)[None, :], here
    scale = tl.load(scales + place, mask=there, other=0.0).to(tl.float32)
    zero = tl.load(zeros + place, mask=there, other=0).to(tl.float32)
    low, high = (pair & 15).to(tl.float32), (pair >> 4).to(tl.float32)
    return ((low - zero) * scale).to(TYPE), ((high - zero) * scale).to(TYPE)


@triton.jit
def _multiply_int4(
    x, packed, scales, zeros, out, n_rows, n_bytes, n_outputs, n_groups, group, part,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, BYTES: tl.constexpr, ONE: tl.constexpr, FLOAT32: tl.constexpr,
):  # fmt: skip
    """One program: a tile of rows, some outputs, and `part` bytes of their inputs."""
    row, column = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    first = tl.program_id(2) * part
    here, wanted = row < n_rows, column < n_outputs
    rows = x + row[:, None].to(tl.int64) * (2 * n_bytes)
    total = tl.zeros([ROWS, OUTPUTS], tl.float32)
    for begin in range(first, tl.minimum(first + part, n_bytes), BYTES):
        low, high = _weights(
            packed, scales, zeros, column, begin, n_outputs, n_bytes, n_groups, group, BYTES, ONE, x.dtype.element_ty
        )
        byte = begin + tl.arange(0, BYTES)
        there = here[:, None] & (byte < n_bytes)[None, :]
        even = tl.load(rows + 2 * byte[None, :], mask=there, other=0.0)
        odd = tl.load(rows + 2 * byte[None, :] + 1, mask=there, other=0.0)
        if FLOAT32:
            total += tl.dot(even.to(tl.float32), tl.trans(low.to(tl.float32)), input_precision="ieee")
            total += tl.dot(odd.to(tl.float32), tl.trans(high.to(tl.float32)), input_precision="ieee")
        else:
            total += tl.dot(even, tl.trans(low))
            total += tl.dot(odd, tl.trans(high))
    at = tl.program_id(2) * n_rows + row  # parts of the inputs one after another
    place = out + at[:, None].to(tl.int64) * n_outputs + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=here[:, None] & wanted[None, :])


@triton.jit
def _widen_int4(
    packed, scales, zeros, out, n_bytes, n_outputs, n_groups, group,
    OUTPUTS: tl.constexpr, BYTES: tl.constexpr, ONE: tl.constexpr,
):  # fmt: skip
    """One program: a tile of weights."""
    column, begin = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS), tl.program_id(1) * BYTES
    low, high = _weights(
        packed, scales, zeros, column, begin, n_outputs, n_bytes, n_groups, group, BYTES, ONE, out.dtype.element_ty
    )
    byte = begin + tl.arange(0, BYTES)
    here = (column < n_outputs)[:, None] & (byte < n_bytes)[None, :]
    place = out + column[:, None].to(tl.int64) * (2 * n_bytes) + 2 * byte[None, :]
    tl.store(place, low, mask=here)
    tl.store(place + 1, high, mask=here)


# Triton's interpreter multiplies the bits of bfloat16 as if they were whole numbers: there, products are of float32.
INTERPRETED = not isinstance(_multiply_int4, triton.runtime.JITFunction)


def multiply_int4(x: Tensor, weight: Int4Weight) -> Tensor:
    """`x @ w.T` with the weights that `weight` stands for, rounded to the type of `x`: `[rows, inputs]` ->
    `[rows, outputs]`. Sums are in float32."""
    outputs, inputs = weight.shape
    if x.ndim != 2 or x.shape[1] != inputs:
        raise ValueError(f"x {tuple(x.shape)} for weights {weight.shape}")
    rows, n_bytes = len(x), inputs // 2
    tile = 16 if rows <= 16 else 32 if rows <= 32 else 64
    columns, lines = triton.cdiv(outputs, OUTPUTS), triton.cdiv(rows, tile)
    wide, one = tile_bytes(weight.group)
    n_tiles = triton.cdiv(n_bytes, wide)
    part = triton.cdiv(n_tiles, max(1, min(n_tiles, PROGRAMS // max(1, columns * lines)))) * wide
    splits = triton.cdiv(n_bytes, part)
    out = torch.empty(splits, rows, outputs, dtype=x.dtype if splits == 1 else torch.float32, device=x.device)
    if rows:
        _multiply_int4[columns, lines, splits](
            x.contiguous(), weight.nibbles, weight.scales, weight.zeros, out,
            rows, n_bytes, outputs, weight.scales.shape[1], weight.group, part,
            ROWS=tile, OUTPUTS=OUTPUTS, BYTES=wide, ONE=one, FLOAT32=x.dtype == torch.float32 or INTERPRETED,
        )  # fmt: skip
    return out[0] if splits == 1 else out.sum(0).to(x.dtype)


def widen(weight: Int4Weight, dtype: torch.dtype) -> Tensor:
    """The weights (`[outputs, inputs]`) that `weight` stands for, rounded to `dtype`."""
    outputs, inputs = weight.shape
    out = torch.empty(outputs, inputs, dtype=dtype, device=weight.device)
    wide, one = tile_bytes(weight.group)
    _widen_int4[triton.cdiv(outputs, OUTPUTS), triton.cdiv(inputs // 2, wide)](
        weight.nibbles, weight.scales, weight.zeros, out, inputs // 2, outputs, weight.scales.shape[1], weight.group,
        OUTPUTS=OUTPUTS, BYTES=wide, ONE=one,
    )  # fmt: skip
    return out


def tile_bytes(group: int) -> tuple[int, bool]:
    """Bytes of nibbles that a tile reads at a time, and whether they are always of one group."""
    for wide in (BYTES, BYTES // 2, BYTES // 4):
        if group % (2 * wide) == 0:
            return wide, True
    return BYTES // 2, False

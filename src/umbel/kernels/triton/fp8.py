"""Rounding to fp8 (e4m3) on a GPU, bit for bit as `reference.round_to_fp8` does it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from umbel.kernels.reference import LARGEST_FP8

LARGEST = tl.constexpr(LARGEST_FP8)
SMALLEST = tl.constexpr(torch.finfo(torch.float32).tiny)
BLOCK = 4096  # numbers of a row read at a time


@triton.jit
def round_e4m3(x):
    """float32 within the range of e4m3 to the nearest number that it has, the even one of two; said here, as Triton's
    interpreter rounds otherwise."""
    bits = x.to(tl.int32, bitcast=True)
    bits = (bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000  # three bits of fraction stay
    small = (tl.abs(x) + 16384.0) - 16384.0  # below 2**-6 numbers are 2**-9 apart, as float32 are from 2**14 on
    return tl.where(tl.abs(x) < 0.015625, tl.where(x < 0, -small, small), bits.to(tl.float32, bitcast=True))


@triton.jit
def _round_rows(x, rounded, scales, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """One row: its largest number first, which decides the scale."""
    row = tl.program_id(0).to(tl.int64)
    largest = tl.zeros([], tl.float32)
    for low in range(0, WIDTH, BLOCK):
        at = low + tl.arange(0, BLOCK)
        found = tl.load(x + row * WIDTH + at, mask=at < WIDTH, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.max(tl.abs(found), 0))
    scale = tl.maximum(tl.div_rn(largest, LARGEST), SMALLEST)
    tl.store(scales + row, scale)
    for low in range(0, WIDTH, BLOCK):
        at = low + tl.arange(0, BLOCK)
        found = tl.load(x + row * WIDTH + at, mask=at < WIDTH, other=0.0).to(tl.float32)
        scaled = round_e4m3(tl.minimum(tl.maximum(tl.div_rn(found, scale), -LARGEST), LARGEST))
        tl.store(rounded + row * WIDTH + at, scaled.to(rounded.dtype.element_ty), mask=at < WIDTH)


def round_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (`[rows, width]`, contiguous) as e4m3 and their dequantisation scales (float32 `[rows]`)."""
    rows, width = x.shape
    out = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(rows, dtype=torch.float32, device=x.device)
    if rows:
        _round_rows[(rows,)](x, out, scales, WIDTH=width, BLOCK=min(BLOCK, triton.next_power_of_2(width)))
    return out, scales

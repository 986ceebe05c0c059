"""Products of rows with the weights of their experts on a GPU, all in one launch: the matmul of mixtures of experts.

Rows stand sorted by expert, so that each expert's are one range; ranges are cut into tiles, and a program is one tile
and some outputs (after MegaBlocks, arXiv 2211.15841). No row is padded beyond its tile and none is dropped. How many
rows each expert has only the GPU knows: there are as many programs as any choice could need, each finds its own tile,
and those that are left over have none. So no launch waits for counts, and launches can be recorded as a graph.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, OUTPUTS, INPUTS = 32, 64, 64  # of a tile


@triton.jit
def _multiply(
    x, weights, bias, out, ends, n_experts, n_inputs, n_outputs,
    EXPERTS: tl.constexpr, ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, FLOAT32: tl.constexpr,
    BIASED: tl.constexpr,
):  # fmt: skip
    """One program: a tile of one expert's rows and some of its outputs."""
    index, tile = tl.arange(0, EXPERTS), tl.program_id(0)
    there = index < n_experts
    end = tl.load(ends + index, mask=there, other=0)
    begin = tl.load(ends + index - 1, mask=there & (index > 0), other=0)
    tiles = tl.where(there, (end - begin + ROWS - 1) // ROWS, 0)
    tiles_end = tl.cumsum(tiles, 0)
    mine = (tile < tiles_end) & (tile >= tiles_end - tiles)  # of one expert, or of none
    first = tl.sum(tl.where(mine, begin + (tile - tiles_end + tiles) * ROWS, 0), 0)
    left = tl.sum(tl.where(mine, end, 0), 0) - first
    expert = tl.sum(tl.where(mine, index, 0), 0).to(tl.int64)
    weights += expert * n_outputs * n_inputs
    row, column = tl.arange(0, ROWS), tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    here, wanted = row < left, column < n_outputs
    rows = (first + row).to(tl.int64)
    total = tl.zeros([ROWS, OUTPUTS], tl.float32)
    for low in range(0, tl.where(left > 0, n_inputs, 0), INPUTS):
        at = low + tl.arange(0, INPUTS)
        inside = at < n_inputs
        taken = tl.load(x + rows[:, None] * n_inputs + at[None, :], mask=here[:, None] & inside[None, :], other=0.0)
        place = weights + column[None, :].to(tl.int64) * n_inputs + at[:, None]
        weight = tl.load(place, mask=wanted[None, :] & inside[:, None], other=0.0)
        if FLOAT32:
            total += tl.dot(taken.to(tl.float32), weight.to(tl.float32), input_precision="ieee")
        else:
            total += tl.dot(taken, weight)
    if BIASED:
        total += tl.load(bias + expert * n_outputs + column, mask=wanted, other=0.0).to(tl.float32)[None, :]
    place = out + rows[:, None] * n_outputs + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=here[:, None] & wanted[None, :])


@triton.jit
def _weighted_sum(parts, places, shares, out, n_each, width, BLOCK: tl.constexpr):
    """One row and some of its columns, in the order of its places."""
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = at < width
    total = tl.zeros([BLOCK], tl.float32)
    for i in range(0, n_each):
        place = tl.load(places + row * n_each + i) * width + at
        share = tl.load(shares + row * n_each + i)
        total += tl.load(parts + place, mask=there, other=0.0).to(tl.float32) * share
    tl.store(out + row * width + at, total.to(out.dtype.element_ty), mask=there)


@triton.jit
def _gated_clamped(gate_up, out, alpha, limit, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = at < WIDTH
    gate = tl.load(gate_up + row * 2 * WIDTH + at, mask=there, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * WIDTH + WIDTH + at, mask=there, other=0.0).to(tl.float32)
    gate, up = tl.minimum(gate, limit), tl.minimum(tl.maximum(up, -limit), limit)
    bent = gate / (1.0 + tl.exp(-alpha * gate)) * (up + 1.0)
    tl.store(out + row * WIDTH + at, bent.to(out.dtype.element_ty), mask=there)


# Triton's interpreter multiplies the bits of bfloat16 as if they were whole numbers: there, products are of float32.
INTERPRETED = not isinstance(_multiply, triton.runtime.JITFunction)


def multiply_by_expert(x: Tensor, weights: Tensor, ends: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x[r] @ weights[e].T + bias[e]` for rows (`[rows, inputs]`) that stand sorted by expert, those of each up to
    `ends[e]` (int64 `[experts]`); `weights` `[experts, outputs, inputs]`, `bias` `[experts, outputs]`. Gives `[rows,
    outputs]`."""
    experts, outputs, inputs = weights.shape
    if x.shape[1:] != (inputs,) or ends.shape != (experts,) or x.dtype != weights.dtype:
        raise ValueError(f"{len(ends)} ends of rows of x {tuple(x.shape)} of {x.dtype} for {tuple(weights.shape)}")
    if bias is not None and bias.shape != (experts, outputs):
        raise ValueError(f"a bias {tuple(bias.shape)} for {tuple(weights.shape)}")
    out = x.new_empty(len(x), outputs)
    most = min(len(x), len(x) // ROWS + experts)  # tiles: each has a row, and each expert one that may not be full
    if most:
        _multiply[most, triton.cdiv(outputs, OUTPUTS)](
            x.contiguous(), weights.contiguous(), weights if bias is None else bias.contiguous(), out, ends,
            experts, inputs, outputs,
            EXPERTS=triton.next_power_of_2(experts), ROWS=ROWS, OUTPUTS=OUTPUTS, INPUTS=INPUTS,
            FLOAT32=x.dtype == torch.float32 or INTERPRETED, BIASED=bias is not None,
        )  # fmt: skip
    return out


def gated_clamped(gate_up: Tensor, alpha: float, limit: float) -> Tensor:
    """gpt-oss's gate, in the form of `kernels.rows`."""
    rows, width = len(gate_up), gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, width)
    if rows:
        _gated_clamped[rows, triton.cdiv(width, 1024)](gate_up.contiguous(), out, alpha, limit, width, BLOCK=1024)
    return out


def weighted_sum(parts: Tensor, places: Tensor, shares: Tensor) -> Tensor:
    """For each row, `parts` at its `places` times its `shares`, added up in float32: the form of `kernels.experts`."""
    rows, each = places.shape
    out = parts.new_empty(rows, parts.shape[1])
    if rows:
        _weighted_sum[rows, triton.cdiv(parts.shape[1], 1024)](
            parts, places.contiguous(), shares.contiguous(), out, each, parts.shape[1], BLOCK=1024
        )
    return out

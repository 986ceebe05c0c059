"""Products of rows with the weights of their experts on a GPU, all in one launch: the matmul of mixtures of experts.

Rows stand sorted by expert, so that each expert's are one range; ranges are cut into tiles, and a program is one tile
and some outputs (after MegaBlocks, arXiv 2211.15841). No row is padded beyond its tile and none is dropped.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, OUTPUTS, INPUTS = 32, 64, 64  # of a tile


@triton.jit
def _multiply(
    x, weights, out, tiles, n_inputs, n_outputs,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, FLOAT32: tl.constexpr,
):  # fmt: skip
    """One program: a tile of one expert's rows and some of its outputs."""
    tile = tiles + tl.program_id(0) * 3
    row, column = tl.arange(0, ROWS), tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    here, wanted = row < tl.load(tile + 2), column < n_outputs
    rows = (tl.load(tile + 1) + row).to(tl.int64)
    weights += tl.load(tile).to(tl.int64) * n_outputs * n_inputs
    total = tl.zeros([ROWS, OUTPUTS], tl.float32)
    for low in range(0, n_inputs, INPUTS):
        at = low + tl.arange(0, INPUTS)
        there = at < n_inputs
        left = tl.load(x + rows[:, None] * n_inputs + at[None, :], mask=here[:, None] & there[None, :], other=0.0)
        place = weights + column[None, :].to(tl.int64) * n_inputs + at[:, None]
        right = tl.load(place, mask=wanted[None, :] & there[:, None], other=0.0)
        if FLOAT32:
            total += tl.dot(left.to(tl.float32), right.to(tl.float32), input_precision="ieee")
        else:
            total += tl.dot(left, right)
    place = out + rows[:, None] * n_outputs + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=here[:, None] & wanted[None, :])


# Triton's interpreter multiplies the bits of bfloat16 as if they were whole numbers: there, products are of float32.
INTERPRETED = not isinstance(_multiply, triton.runtime.JITFunction)


def multiply_by_expert(x: Tensor, weights: Tensor, counts: np.ndarray) -> Tensor:
    """`x[r] @ weights[e].T` for rows (`[rows, inputs]`) that stand sorted by expert, `counts[e]` of each (int64
    `[experts]`); `weights` `[experts, outputs, inputs]`, contiguous. Gives `[rows, outputs]`."""
    experts, outputs, inputs = weights.shape
    if x.shape != (int(counts.sum()), inputs) or len(counts) != experts or x.dtype != weights.dtype:
        raise ValueError(f"x {tuple(x.shape)} of {x.dtype} for {counts.tolist()} rows of {tuple(weights.shape)}")
    out = x.new_empty(len(x), outputs)
    tiles = torch.from_numpy(_tiles(counts)).to(x.device)
    if len(tiles):
        _multiply[len(tiles), triton.cdiv(outputs, OUTPUTS)](
            x.contiguous(), weights.contiguous(), out, tiles, inputs, outputs,
            ROWS=ROWS, OUTPUTS=OUTPUTS, INPUTS=INPUTS, FLOAT32=x.dtype == torch.float32 or INTERPRETED,
        )  # fmt: skip
    return out


def _tiles(counts: np.ndarray) -> np.ndarray:
    """Expert, first row and rows of each tile (int32 `[tiles, 3]`)."""
    n_tiles = -(-counts // ROWS)
    expert = np.repeat(np.arange(len(counts)), n_tiles)
    turn = np.arange(len(expert)) - np.repeat(np.cumsum(n_tiles) - n_tiles, n_tiles)
    first = (np.cumsum(counts) - counts)[expert] + turn * ROWS
    return np.stack((expert, first, np.minimum(counts[expert] - turn * ROWS, ROWS)), 1).astype(np.int32)

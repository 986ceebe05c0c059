"""The compiled products with 4-bit weights: nibbles stay packed in memory, and are widened in registers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.kernels.int4 import Int4Weight
from umbel.kernels.native.calls import INSTRUCTION_SETS
from umbel.kernels.native.products import FORMS, Packed, make_out, pack

if INSTRUCTION_SETS:
    from umbel.kernels.native import _umbel

OCTET = 8  # inputs whose nibbles are one dword
MOST = 128
"""Inputs of a group in the kernels, at most: sums of a row then fit 16 bits, and each group of a row has a scale of its
own, which keeps an outlier from its neighbours."""
_ZERO_BITS = 15  # the lowest bits of a float32 scale, which one that was stored in 16 bits has no use for


@dataclass(frozen=True, slots=True)
class Int4Panels:
    """4-bit weights as `native/products.h` lays them out; `group` inputs share a scale."""

    packed: Packed
    group: int


def group_for(weight: Int4Weight) -> int | None:
    """The inputs that share a scale in the kernels: those of the weight's own groups, or a part of them. None where
    groups are not whole octets."""
    if weight.shape[1] % weight.group or weight.group % OCTET:
        return None
    return max(n for n in range(OCTET, min(weight.group, MOST) + 1, OCTET) if weight.group % n == 0)


def int4_panels(weight: Int4Weight, *, gated: bool = False) -> Int4Panels | None:
    """Copy weights into panels, or None where `group_for` has no group. Scales that were stored in 32 bits lose the
    last four of them."""
    if (group := group_for(weight)) is None:
        return None
    outputs, inputs = weight.shape
    repeats = weight.group // group
    scales = weight.scales.to(torch.float32).repeat_interleave(repeats, 1).contiguous().view(torch.int32)
    zeros = weight.zeros.repeat_interleave(repeats, 1)
    heads = (scales + (_ZERO_BITS + 1) // 2 & ~_ZERO_BITS) | zeros
    octets = _octets(weight.nibbles).view(outputs, inputs // group, group // OCTET)
    rows = torch.cat((heads.unsqueeze(2), octets), 2).flatten(1)
    packed = pack(rows, gated=gated)
    return Int4Panels(Packed(packed.panels, outputs, inputs, gated), group)


def _octets(nibbles: Tensor) -> Tensor:
    """Nibbles in order (uint8 `[outputs, inputs / 2]`) as dwords of eight (int32 `[outputs, inputs / 8]`), the first
    four in the low halves of their bytes."""
    first, second, third, fourth = nibbles.view(len(nibbles), -1, 4).unbind(2)
    low, high = 15, 240
    mixed = first & low | third << 4, first >> 4 | third & high, second & low | fourth << 4, second >> 4 | fourth & high
    return torch.stack(mixed, 2).view(torch.int32).squeeze(2)


class Int4Products:
    """Products of rows and 4-bit weights: each group of a row is rounded to int8 by its own largest value, sums are
    exact in int32 within a group, and groups are added in their order: a row's bits depend neither on the other rows,
    nor on the number of threads, nor on the instruction set."""

    def __init__(self, instruction_set: str):
        self._kernels = _umbel.Int4Products(instruction_set)

    def quantise(self, x: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (bfloat16 or float32) as int8, the scale of each of their groups (float32 `[rows, groups]`), and the sum
        of its numbers (int32)."""
        if x.dtype not in FORMS or x.ndim != 2 or x.shape[1] % group:
            raise ValueError(f"x {tuple(x.shape)} of {x.dtype} cannot be quantised in groups of {group}")
        x, groups = x.contiguous(), (len(x), x.shape[1] // group)
        out, scale = torch.empty(x.shape, dtype=torch.int8), torch.empty(groups, dtype=torch.float32)
        sums, narrow = torch.empty(groups, dtype=torch.int32), x.dtype == torch.bfloat16
        addresses = out.data_ptr(), scale.data_ptr(), sums.data_ptr()
        self._kernels.quantise(x.data_ptr(), narrow, *addresses, *x.shape, group, torch.get_num_threads())
        return out, scale, sums

    def multiply(self, x: Tensor, weight: Int4Panels, bias: Tensor | None) -> Tensor:
        """`x @ weight.T + bias` in the type of `x`, with the gate behind it where the weights are packed for one;
        `bias` is in the order of the panels (`panel_order`)."""
        packed = weight.packed
        if x.shape[1:] != (packed.inputs,):
            raise ValueError(f"x {tuple(x.shape)} does not fit {packed.outputs} x {packed.inputs}")
        whole, scale, sums = self.quantise(x, weight.group)
        form = FORMS[x.dtype][packed.gated]
        out = make_out(packed, len(x), form)
        addresses = whole.data_ptr(), packed.panels.data_ptr(), 0 if bias is None else bias.data_ptr(), out.data_ptr()
        sizes = len(x), packed.panels.shape[1], out.shape[1], int(form)
        self._kernels.multiply(
            *addresses, *sizes, scale.data_ptr(), sums.data_ptr(), weight.group, torch.get_num_threads()
        )
        return out

"""Weights in 4 bits as one record, whatever stored them: nibbles, and a scale and a zero point per group of inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.kernels import reference

MIDDLE, MOST = 8, 15  # the nibble of zero in symmetric weights, the largest nibble


@dataclass(frozen=True, slots=True)
class Int4Weight:
    """What a matrix `[outputs, inputs]` is in 4 bits; see kernels.reference.from_int4.

    `nibbles` uint8 `[outputs, inputs / 2]`, `scales` floats and `zeros` uint8 `[outputs, groups]`; `group` inputs, an
    even number, share a scale.
    """

    nibbles: Tensor
    scales: Tensor
    zeros: Tensor
    group: int

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.nibbles.shape[0], 2 * self.nibbles.shape[1]

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.nibbles.device

    def each(self, change: Callable[[Tensor], Tensor]) -> Int4Weight:
        """The same change of all three tensors, whose rows are outputs: a cut, a move."""
        return Int4Weight(change(self.nibbles), change(self.scales), change(self.zeros), self.group)

    def to(self, device: torch.device) -> Int4Weight:
        """On another device."""
        return self.each(lambda tensor: tensor.to(device))

    def floats(self, dtype: torch.dtype) -> Tensor:
        """The weights it stands for, rounded to `dtype` once."""
        return reference.from_int4(self.nibbles, self.scales, self.zeros, self.group).to(dtype)


def stack(parts: Sequence[Int4Weight]) -> Int4Weight:
    """Weights of the same inputs and groups as one, their outputs one after another."""
    if len({(part.shape[1], part.group) for part in parts}) != 1:
        raise ValueError("parts of a stack must have the same inputs and groups")
    nibbles, scales, zeros = ([p.nibbles for p in parts], [p.scales for p in parts], [p.zeros for p in parts])
    return Int4Weight(torch.cat(nibbles), torch.cat(scales), torch.cat(zeros), parts[0].group)


def pack_nibbles(values: Tensor) -> Tensor:
    """Numbers 0 to 15 (`[outputs, inputs]`, inputs even) two to a byte, the first of each two in the low half."""
    values = values.to(torch.uint8)
    return values[:, ::2] | values[:, 1::2] << 4


def round_to_int4(weight: Tensor, group: int) -> Int4Weight:
    """The nearest 4-bit weights: of each group the range from its least to its largest value, which zero is made part
    of, in 15 equal steps. `group` must be even and divide the inputs."""
    outputs, inputs = weight.shape
    if group % 2 or inputs % group:
        raise ValueError(f"groups of {group} in {inputs} inputs: must be even, and divide them")
    wide = weight.to(torch.float32).view(outputs, inputs // group, group)
    low, high = wide.amin(2).clamp(max=0), wide.amax(2).clamp(min=0)
    # Rounded to 16 bits before anything is divided by it: what is kept is the nearest under the scale that is used.
    scales = (high / MOST - low / MOST).to(torch.bfloat16)
    steps = scales.float().masked_fill(scales == 0, 1.0)
    zeros = (-low / steps).round().clamp(0, MOST)
    values = (wide / steps.unsqueeze(2)).round().add(zeros.unsqueeze(2)).clamp(0, MOST)
    return Int4Weight(pack_nibbles(values.view(outputs, inputs)), scales, zeros.to(torch.uint8), group)

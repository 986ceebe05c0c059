"""Rotary positions as the decoder computes them: one form for all, that of halves over whole heads.

Heads of which only a part turns, or whose pairs are neighbours, have their numbers put into another order as weights
are loaded: a product of a query and a key does not depend on it. Pairs that do not turn have the frequency 0. So one
kernel rotates for every model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.ir.layer import Rope, RopeScaling
from umbel.ir.spec import ModelSpec
from umbel.kernels.int4 import Int4Weight

Angles = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Frequencies:
    """Radians per position of each pair of a head's numbers: float32 `[head_dim / 2]`."""

    radians: Tensor

    def to(self, device: torch.device) -> Frequencies:
        """On another device."""
        return Frequencies(self.radians.to(device))

    def angles(self, positions: Tensor, dtype: torch.dtype) -> Angles:
        """Cosine and sine of the angles of rows at `positions` (int64 `[rows]`)."""
        return rotary_angles(positions, self.radians, dtype)


def frequencies_of(spec: ModelSpec, rope: Rope | None) -> Frequencies:
    """The frequencies of layers with this `rope`; 0 where numbers do not turn."""
    radians = torch.zeros(spec.head_dim // 2)
    if rope is not None:
        turning = inverse_frequencies(rope, rope.theta or spec.rope_theta, rope.dim or spec.head_dim)
        radians[: len(turning)] = turning
    return Frequencies(radians)


def inverse_frequencies(rope: Rope, theta: float, dim: int) -> Tensor:
    """Radians per position of each of `dim / 2` pairs, stretched as `rope` says: float32."""
    frequencies = 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    scaling = rope.scaling
    if scaling is None:
        return frequencies
    return frequencies / scaling.factor if scaling.kind == "linear" else _llama3_frequencies(frequencies, scaling)


def rotary_angles(positions: Tensor, frequencies: Tensor, dtype: torch.dtype) -> Angles:
    """Cosine and sine of each row's rotary angles, computed in float32: two of [rows, 1, head_dim / 2]."""
    angles = positions.to(torch.float32)[:, None, None] * frequencies
    return angles.cos().to(dtype), angles.sin().to(dtype)


def halves_order(rope: Rope | None, head_dim: int) -> Tensor | None:
    """Where a head's numbers go so that each turns with the one half a head on: int64 `[head_dim]`, None: they stay."""
    dim = head_dim if rope is None or rope.dim is None else rope.dim
    if rope is None or (dim == head_dim and not rope.interleaved):
        return None
    turning = torch.arange(dim).view(-1, 2).t() if rope.interleaved else torch.arange(dim).view(2, -1)
    still = torch.arange(dim, head_dim).view(2, -1)
    return torch.cat((turning, still), 1).flatten()


def in_order(tensor: Tensor | Int4Weight, order: Tensor | None, heads: int) -> Tensor | Int4Weight:
    """A weight or bias of which the first axis begins with `heads` heads: these with their numbers in `order`."""
    if order is None:
        return tensor
    first = (torch.arange(heads)[:, None] * len(order) + order).flatten()
    if isinstance(tensor, Int4Weight):
        return tensor.each(lambda each: _in_order(each, first))
    return _in_order(tensor, first)


def _in_order(tensor: Tensor, first: Tensor) -> Tensor:
    rest = torch.arange(len(first), len(tensor))
    return tensor[torch.cat((first, rest)).to(tensor.device)]


def _llama3_frequencies(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3.1: short wavelengths stay, long ones are divided by the factor, those between are interpolated."""
    low, high, context = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_max_position
    if low is None or high is None or context is None:
        raise ValueError(f"llama3 rope scaling without its bounds: {scaling}")
    wavelengths = 2 * math.pi / frequencies
    scaled = torch.where(wavelengths > context / low, frequencies / scaling.factor, frequencies)
    smooth = (context / wavelengths - low) / (high - low)
    between = (1 - smooth) * scaled / scaling.factor + smooth * scaled
    is_between = ~(wavelengths < context / high) & ~(wavelengths > context / low)
    return torch.where(is_between, between, scaled)

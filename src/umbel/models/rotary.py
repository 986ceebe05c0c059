"""Rotary positions as the decoder computes them: one form for all, that of halves over whole heads.

Heads of which only a part turns, or whose pairs are neighbours, have their numbers put into another order as weights
are loaded: a product of a query and a key does not depend on it. Pairs that do not turn have the frequency 0. So one
kernel rotates for every model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from umbel.ir.layer import Rope, RopeScaling
from umbel.ir.spec import ModelSpec
from umbel.kernels.int4 import Int4Weight

Angles = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Frequencies:
    """Radians per position of each pair of a head's numbers (float32 `[head_dim / 2]`), what cosines and sines are
    multiplied by (the same, or None), and by which queries of later positions grow: factor and length of a stretch."""

    radians: Tensor
    factors: Tensor | None = None
    growth: tuple[float, int] | None = None

    def to(self, device: torch.device) -> Frequencies:
        """On another device."""
        factors = None if self.factors is None else self.factors.to(device)
        return Frequencies(self.radians.to(device), factors, self.growth)

    def angles(self, positions: Tensor, dtype: torch.dtype) -> Angles:
        """Cosine and sine of the angles of rows at `positions` (int64 `[rows]`)."""
        if self.factors is None:
            return rotary_angles(positions, self.radians, dtype)
        cos, sin = rotary_angles(positions, self.radians, torch.float32)
        return (cos * self.factors).to(dtype), (sin * self.factors).to(dtype)

    def query_scales(self, positions: Tensor, dtype: torch.dtype) -> Tensor | None:
        """What queries at `positions` are multiplied by (`[rows, 1, 1]`), None: nothing."""
        if self.growth is None:
            return None
        factor, stretch = self.growth
        scales = 1 + factor * torch.log(1 + torch.floor(positions / stretch))
        return scales[:, None, None].to(dtype)


def frequencies_of(spec: ModelSpec, rope: Rope | None) -> Frequencies:
    """The frequencies of layers with this `rope`; 0 where numbers do not turn."""
    radians, factors = torch.zeros(spec.head_dim // 2), torch.ones(spec.head_dim // 2)
    if rope is None:
        return Frequencies(radians)
    turning = inverse_frequencies(rope, rope.theta or spec.rope_theta, rope.dim or spec.head_dim)
    radians[: len(turning)] = turning
    scaling = rope.scaling
    factors[: len(turning)] = 1.0 if scaling is None else scaling.attention_factor
    growth = (rope.growth, (scaling and scaling.original_max_position) or spec.max_positions) if rope.growth else None
    return Frequencies(radians, None if (factors == 1.0).all() else factors, growth)


def inverse_frequencies(rope: Rope, theta: float, dim: int) -> Tensor:
    """Radians per position of each of `dim / 2` pairs, stretched as `rope` says: float32."""
    scaling, exponents = rope.scaling, torch.arange(0, dim, 2, dtype=torch.float32) / dim
    if scaling is not None and scaling.kind == "alpha":
        theta *= scaling.factor ** (dim / (dim - 2))
    periods = theta**exponents
    return 1.0 / periods if scaling is None else STRETCHED[scaling.kind](periods, scaling, theta)


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


def _alpha(periods: Tensor, scaling: RopeScaling, theta: float) -> Tensor:
    return 1.0 / periods


def _linear(periods: Tensor, scaling: RopeScaling, theta: float) -> Tensor:
    return 1.0 / periods / scaling.factor


def _longrope(periods: Tensor, scaling: RopeScaling, theta: float) -> Tensor:
    return 1.0 / (torch.tensor(scaling.divisors, dtype=torch.float32) * periods)


def _yarn(periods: Tensor, scaling: RopeScaling, theta: float) -> Tensor:
    """Pairs that turn often within the original context stay, those that turn rarely are divided by the factor, and
    those between are mixed."""
    context, pairs = scaling.original_max_position, len(periods)
    assert context is not None
    low, high = (
        2 * pairs * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))
        for turns in (scaling.beta_fast, scaling.beta_slow)
    )
    low, high = (math.floor(low), math.ceil(high)) if scaling.truncates else (low, high)
    low, high = max(low, 0), min(high, 2 * pairs - 1)
    ramp = (torch.arange(pairs, dtype=torch.float32) - low) / (high - low or 0.001)
    kept = 1 - ramp.clamp(0, 1)
    return 1.0 / (scaling.factor * periods) * (1 - kept) + 1.0 / periods * kept


def _llama3(periods: Tensor, scaling: RopeScaling, theta: float) -> Tensor:
    """Llama 3.1: short wavelengths stay, long ones are divided by the factor, those between are interpolated."""
    low, high, context = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_max_position
    if low is None or high is None or context is None:
        raise ValueError(f"llama3 rope scaling without its bounds: {scaling}")
    frequencies = 1.0 / periods
    wavelengths = 2 * math.pi / frequencies
    scaled = torch.where(wavelengths > context / low, frequencies / scaling.factor, frequencies)
    smooth = (context / wavelengths - low) / (high - low)
    between = (1 - smooth) * scaled / scaling.factor + smooth * scaled
    is_between = ~(wavelengths < context / high) & ~(wavelengths > context / low)
    return torch.where(is_between, between, scaled)


STRETCHED: Mapping[str, Callable[[Tensor, RopeScaling, float], Tensor]] = MappingProxyType({
    "linear": _linear, "llama3": _llama3, "yarn": _yarn, "longrope": _longrope, "alpha": _alpha,
})  # fmt: skip
"""Frequencies from the numbers of positions in which pairs turn by a radian, by the kinds of `RopeScaling`."""

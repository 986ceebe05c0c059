"""Layers with a recurrence in the place of attention, on packed rows: what becomes of the product before it.

All of it is computed token by token, with sums in float32: a row's bits depend on the tokens before it, and not on
chunks or on other rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from umbel.kv.states import StatePlace
from umbel.linear.base import Weights


class Recurrent(Protocol):
    """A layer's recurrence."""

    def apply(self, product: Tensor, place: StatePlace) -> Tensor:
        """What the product behind it reads (`[rows, inputs]`) of what the one before it gave; states are left in their
        place."""
        ...


@dataclass(frozen=True, slots=True)
class Convolution:
    """A causal convolution of channels, each for itself. `weights`: of the row itself (float32 `[channels]`), then of
    the token before, and so on; `bias` (float32 `[channels]`)."""

    weights: tuple[Tensor, ...]
    bias: Tensor | None

    @classmethod
    def of(cls, named: Weights) -> Convolution:
        """From the tensors of a layer, where the last tap is the row's own."""
        return cls(tuple(tap.contiguous() for tap in named["conv"].T.flip(0)), named.get("conv_bias"))

    def apply(self, x: Tensor, place: StatePlace) -> Tensor:
        """`[rows, channels]` -> float32 `[rows, channels]`."""
        total = x.float() * self.weights[0]
        for earlier, weight in zip(place.earlier(x), self.weights[1:], strict=True):
            total = total + earlier.float() * weight
        return total if self.bias is None else total + self.bias


@dataclass(frozen=True, slots=True)
class ShortConv:
    """The gated convolution of LFM2: its input is one part of the product times another, a third its result's gate."""

    conv: Convolution

    def apply(self, product: Tensor, place: StatePlace) -> Tensor:
        """Implement `Recurrent.apply`."""
        before, behind, x = product.chunk(3, 1)
        return behind * self.conv.apply(before * x, place).to(product.dtype)

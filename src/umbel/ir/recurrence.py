"""What a layer has in the place of attention that keeps a state of one size, whatever the number of tokens before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A recurrence over a layer's tokens; layers of a model that have one are alike.

    `kind`: "short_conv", a gated convolution (LFM2, 2511.23404).
    `channels`: numbers of a token that pass a causal convolution, each for itself, over `taps` tokens, its own the
    last; `has_bias`: of the convolution and of the products around it.
    """

    kind: Literal["short_conv"]
    channels: int
    taps: int
    has_bias: bool = False

    @property
    def kept_numbers(self) -> int:
        """Numbers in the model's type that a state has: the inputs of the convolution at the last `taps` tokens."""
        return self.taps * self.channels

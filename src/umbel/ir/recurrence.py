"""What a layer has in the place of attention that keeps a state of one size, whatever the number of tokens before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A recurrence over a layer's tokens; layers of a model that have one are alike.

    `kind`: "short_conv", a gated convolution (LFM2, 2511.23404), "gated_delta", a gated delta rule (2412.06464), or
    "mamba2" (2405.21060). `channels`: numbers of a token that pass a causal convolution, each for itself, over `taps`
    tokens, its own the last; `conv_bias`: of the convolution, `has_bias`: of the products around. Behind it, `heads`
    matrices of `key_dim` rows and `value_dim` columns may be kept, `key_heads` of queries and keys serving as many of
    them each. `is_by_key`: in the products of a checkpoint, what belongs to a head of keys stands together.
    """

    kind: Literal["short_conv", "gated_delta", "mamba2"]
    channels: int
    taps: int
    has_bias: bool = False
    conv_bias: bool = False
    heads: int = 0
    key_heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    is_by_key: bool = False

    @property
    def kept_inputs(self) -> int:
        """Numbers in the model's type that a state has: the inputs of the convolution at the last `taps` tokens."""
        return self.taps * self.channels

    @property
    def matrix_numbers(self) -> int:
        """Numbers in float32 that a state has."""
        return self.heads * self.key_dim * self.value_dim

    @property
    def width(self) -> int:
        """Numbers of a token that the product behind it reads."""
        return self.heads * self.value_dim or self.channels

    @property
    def inputs(self) -> tuple[int, ...]:
        """Numbers of a token that it reads, as parts of the product before: what passes the convolution, and gates."""
        if self.kind == "short_conv":
            return (self.channels,) * 3
        if self.kind == "mamba2":
            return self.width, self.channels, self.heads
        return self.channels, self.width, self.heads, self.heads

    @property
    def stacked(self) -> tuple[int, ...]:
        """The same as checkpoints have it."""
        conv, gate, *small = self.inputs
        return (conv + gate, sum(small)) if self.is_by_key else self.inputs

    @property
    def vectors(self) -> dict[str, tuple[int, ...]]:
        """What it has learned beside products, by our names, with its shape."""
        found: dict[str, tuple[int, ...]] = {"conv": (self.channels, self.taps)}
        found |= {"conv_bias": (self.channels,)} if self.conv_bias else {}
        if self.kind == "short_conv":
            return found
        found |= {"decay": (self.heads,), "step_bias": (self.heads,)}
        return found | (
            {"skip": (self.heads,), "out_norm": (self.width,)}
            if self.kind == "mamba2"
            else {"out_norm": (self.value_dim,)}
        )

    @property
    def flops(self) -> int:
        """Multiplications and additions for a token: in the convolution, and to fade, read and change matrices."""
        return 2 * self.taps * self.channels + 7 * self.matrix_numbers

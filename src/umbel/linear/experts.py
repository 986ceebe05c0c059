"""The products of a mixture of experts, for rows that know their expert: in one launch, or one expert after another.

Where a kernel takes the weights of all experts at once, as on a GPU, the processor need not know how many rows each
has. Anywhere else every expert has products of its own, made by the same method as all others, with what that promises:
on a CPU the result of a row does not depend on how many others share its expert.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from umbel.errors import UsageError
from umbel.kernels.experts import has_grouped_products, multiply_by_expert
from umbel.kernels.rows import gated_silu
from umbel.linear.base import Linear, LinearMethod


class ExpertProducts(Protocol):
    """Weights of all experts as a method keeps them."""

    def apply(self, x: Tensor, rows: Tensor, ends: Tensor) -> Tensor:
        """What the experts make of some rows (int64 `[n]`) of `x` (`[rows, hidden]`), which stand sorted by expert,
        those of each up to `ends[e]` (int64 `[experts]`): `[n, hidden]`."""
        ...


@dataclass(frozen=True, slots=True)
class GroupedProducts:
    """Weights of all experts stacked: `gate_up` `[experts, 2 * width, hidden]`, `down` `[experts, hidden, width]`."""

    gate_up: Tensor
    down: Tensor

    def apply(self, x: Tensor, rows: Tensor, ends: Tensor) -> Tensor:
        """One launch for `gate_up` and one for `down`."""
        inner = gated_silu(multiply_by_expert(x[rows], self.gate_up, ends))
        return multiply_by_expert(inner, self.down, ends)


@dataclass(frozen=True, slots=True)
class SingleProducts:
    """A pair of products for each expert, the gate behind the first."""

    pairs: tuple[tuple[Linear, Linear], ...]

    def apply(self, x: Tensor, rows: Tensor, ends: Tensor) -> Tensor:
        """One expert after another; waits for how many rows each has."""
        out = x.new_empty(len(rows), x.shape[1])
        for (gate_up, down), (begin, end) in zip(self.pairs, pairwise([0, *ends.tolist()]), strict=True):
            if begin < end:  # picked out one by one, as a piece of a larger tensor may not be aligned like another
                out[begin:end] = down.apply(gate_up.apply(x[rows[begin:end]]))
        return out


def convert_experts(gate_up: Tensor, down: Tensor, method: LinearMethod) -> ExpertProducts:
    """Products of weights `[experts, 2 * width, hidden]` and `[experts, hidden, width]`."""
    if method.keeps_weights and has_grouped_products(gate_up):
        return GroupedProducts(gate_up, down)
    return SingleProducts(
        tuple((method.convert(g, gated=True), method.convert(d)) for g, d in zip(gate_up, down, strict=True))
    )


def check_experts(method: LinearMethod, device: torch.device) -> None:
    """Raise UsageError for a method that would have a GPU wait for the rows of each expert."""
    if device.type != "cpu" and not method.keeps_weights:
        raise UsageError(
            "a GPU multiplies with experts in bfloat16, float16 or float32 only: leave linear (--linear) out"
        )

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
from umbel.ir.experts import ClampedGate
from umbel.kernels.experts import gated_clamped, has_grouped_products, multiply_by_expert
from umbel.kernels.rows import gated_silu
from umbel.linear.base import Linear, LinearMethod, Weights


@dataclass(frozen=True, slots=True)
class ExpertStacks:
    """Weights of all experts as a checkpoint has them: `gate_up` `[experts, 2 * width, hidden]`, `down` `[experts,
    hidden, width]`, and their biases, `[experts, outputs]`, if there are any."""

    gate_up: Tensor
    down: Tensor
    gate_up_bias: Tensor | None = None
    down_bias: Tensor | None = None

    @classmethod
    def of(cls, named: Weights, count: int) -> ExpertStacks:
        """The stacks among the tensors of a layer, which has `count` experts one above another in each."""
        gate_up, down = (named[f"experts_{name}"] for name in ("gate_up", "down"))
        biases = (named.get(f"experts_{name}_bias") for name in ("gate_up", "down"))
        stacks = (stack.view(count, -1, stack.shape[1]) for stack in (gate_up, down))
        return cls(*stacks, *(None if bias is None else bias.view(count, -1) for bias in biases))

    def biases(self) -> list[tuple[Tensor | None, Tensor | None]]:
        """The pair of biases of each expert."""
        nothing: list[Tensor | None] = [None] * len(self.down)
        first, second = (nothing if each is None else list(each) for each in (self.gate_up_bias, self.down_bias))
        return list(zip(first, second, strict=True))


class ExpertProducts(Protocol):
    """Weights of all experts as a method keeps them."""

    def apply(self, x: Tensor, rows: Tensor, ends: Tensor) -> Tensor:
        """What the experts make of some rows (int64 `[n]`) of `x` (`[rows, hidden]`), which stand sorted by expert,
        those of each up to `ends[e]` (int64 `[experts]`): `[n, hidden]`."""
        ...


@dataclass(frozen=True, slots=True)
class GroupedProducts:
    """Weights of all experts stacked, with what stands between their products."""

    stacks: ExpertStacks
    gate: ClampedGate | None = None

    def apply(self, x: Tensor, rows: Tensor, ends: Tensor) -> Tensor:
        """One launch for `gate_up` and one for `down`."""
        stacks = self.stacks
        inner = multiply_by_expert(x[rows], stacks.gate_up, ends, stacks.gate_up_bias)
        return multiply_by_expert(bend(inner, self.gate), stacks.down, ends, stacks.down_bias)


@dataclass(frozen=True, slots=True)
class SingleProducts:
    """A pair of products for each expert; the gate is behind the first, or between them where it is given."""

    pairs: tuple[tuple[Linear, Linear], ...]
    gate: ClampedGate | None = None

    def apply(self, x: Tensor, rows: Tensor, ends: Tensor) -> Tensor:
        """One expert after another; waits for how many rows each has."""
        out = x.new_empty(len(rows), x.shape[1])
        for (gate_up, down), (begin, end) in zip(self.pairs, pairwise([0, *ends.tolist()]), strict=True):
            if begin < end:  # picked out one by one, as a piece of a larger tensor may not be aligned like another
                inner = gate_up.apply(x[rows[begin:end]])
                out[begin:end] = down.apply(inner if self.gate is None else bend(inner, self.gate))
        return out


def bend(gate_up: Tensor, gate: ClampedGate | None) -> Tensor:
    """What stands between two products of an expert: `[rows, 2 * width]` -> `[rows, width]`."""
    return gated_silu(gate_up) if gate is None else gated_clamped(gate_up, gate.alpha, gate.limit)


def convert_experts(stacks: ExpertStacks, method: LinearMethod, gate: ClampedGate | None = None) -> ExpertProducts:
    """The products of all experts."""
    if method.keeps_weights and has_grouped_products(stacks.gate_up):
        return GroupedProducts(stacks, gate)
    pairs = (
        (method.convert(first, bias, gated=gate is None), method.convert(second, other))
        for first, second, (bias, other) in zip(stacks.gate_up, stacks.down, stacks.biases(), strict=True)
    )
    return SingleProducts(tuple(pairs), gate)


def check_experts(method: LinearMethod, device: torch.device) -> None:
    """Raise UsageError for a method that would have a GPU wait for the rows of each expert."""
    if device.type != "cpu" and not method.keeps_weights:
        raise UsageError(
            "a GPU multiplies with experts in bfloat16, float16 or float32 only: leave linear (--linear) out"
        )

"""What follows the attention in a layer: a gate of its own, or experts among which a router chooses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from umbel.ir.experts import Experts
from umbel.linear.base import Linear, LinearMethod, Weights
from umbel.linear.summed import SummedLinear
from umbel.models.batch import ForwardBatch
from umbel.models.moe import ExpertBlock


class Block(Protocol):
    """One layer's block."""

    def apply(self, x: Tensor, batch: ForwardBatch) -> Tensor:
        """What normed rows (`[rows, hidden]`) add to the hidden states: `[rows, hidden]`."""
        ...

    def summed(self) -> Block:
        """The same block where each rank of a process group has a part of its inner units: their results added up."""
        ...


@dataclass(frozen=True, slots=True)
class DenseBlock:
    """Two products; `gate_up` has the gate behind it."""

    gate_up: Linear
    down: Linear

    def apply(self, x: Tensor, batch: ForwardBatch) -> Tensor:
        """`down` of what `gate_up` gives."""
        lap = batch.spans.lap
        return lap("down", self.down.apply(lap("gate_up", self.gate_up.apply(x))))

    def summed(self) -> DenseBlock:
        """The block with a sum over all ranks in `down`."""
        return replace(self, down=SummedLinear(self.down))


def convert_block(named: Weights, method: LinearMethod, experts: Experts | None) -> Block:
    """The block of a layer from its tensors, named as in `weights.py`."""
    if experts is not None and "router" in named:
        return ExpertBlock.of(named, method, experts)
    return DenseBlock(
        gate_up=method.convert(named["gate_up"], named.get("gate_up_bias"), gated=True),
        down=method.convert(named["down"], named.get("down_bias")),
    )

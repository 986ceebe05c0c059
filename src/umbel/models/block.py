"""What follows the attention in a layer: an MLP of its own, or experts among which a router chooses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from umbel.ir.layer import Layer
from umbel.ir.spec import ModelSpec
from umbel.kernels.activations import ACTIVATIONS, Activation
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


@dataclass(frozen=True, slots=True)
class ActivatedBlock:
    """Two products with an activation between them; `is_gated`: the first half of `up` is the gate of the second."""

    name: str
    up: Linear
    activation: Activation
    is_gated: bool
    down: Linear

    def apply(self, x: Tensor, batch: ForwardBatch) -> Tensor:
        """`down` of what is active in `up`."""
        lap = batch.spans.lap
        return lap("down", self.down.apply(lap(self.name, self._inner(x))))

    def summed(self) -> ActivatedBlock:
        """The block with a sum over all ranks in `down`."""
        return replace(self, down=SummedLinear(self.down))

    def _inner(self, x: Tensor) -> Tensor:
        inner = self.up.apply(x)
        if not self.is_gated:
            return self.activation(inner)
        gate, up = inner.chunk(2, dim=-1)
        return self.activation(gate) * up


def convert_block(named: Weights, method: LinearMethod, spec: ModelSpec, layer: Layer) -> Block:
    """The block of a layer from its tensors, named as in `weights.py`."""
    if spec.experts is not None and "router" in named:
        return ExpertBlock.of(named, method, spec.experts)
    down = method.convert(named["down"], named.get("down_bias"))
    if layer.is_gated and layer.activation == "silu":  # every method has this gate in its product
        return DenseBlock(method.convert(named["gate_up"], named.get("gate_up_bias"), gated=True), down)
    name = "gate_up" if layer.is_gated else "up"
    up = method.convert(named[name], named.get(f"{name}_bias"))
    return ActivatedBlock(name, up, ACTIVATIONS[layer.activation], layer.is_gated, down)

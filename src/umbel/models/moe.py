"""Mixtures of experts: a router chooses some experts for each row, whose results are added up (Mixtral, 2401.04088).

Nothing here depends on the number of rows an expert gets, and none is turned away.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.ir.experts import Experts
from umbel.kernels.experts import weighted_sum
from umbel.kernels.reference import sigmoid
from umbel.linear.base import Linear, LinearMethod, Table, Weights
from umbel.linear.experts import ExpertProducts, ExpertStacks, convert_experts
from umbel.linear.summed import add_up
from umbel.models.batch import ForwardBatch
from umbel.models.router import ExpertChoice


@dataclass(frozen=True, slots=True)
class SharedExpert:
    """What every row passes through beside the experts chosen for it; `gate`, a table of one row, weighs its result."""

    gate_up: Linear
    down: Linear
    gate: Table | None

    @classmethod
    def of(cls, named: Weights, method: LinearMethod, experts: Experts) -> SharedExpert | None:
        """The shared expert of a layer, if it has one."""
        if not experts.shared_width:
            return None
        gate = method.convert_table(named["shared_gate"]) if experts.shared_gate else None
        gate_up = method.convert(named["shared_gate_up"], named.get("shared_gate_up_bias"), gated=True)
        return cls(gate_up, method.convert(named["shared_down"], named.get("shared_down_bias")), gate)

    def apply(self, x: Tensor) -> Tensor:
        """What it adds to each row."""
        result = self.down.apply(self.gate_up.apply(x))
        return result if self.gate is None else (sigmoid(self.gate.logits(x)) * result).to(x.dtype)


@dataclass(frozen=True, slots=True)
class ExpertBlock:
    """Experts of a layer."""

    experts: Experts
    choice: ExpertChoice
    products: ExpertProducts
    shared: SharedExpert | None

    @classmethod
    def of(cls, named: Weights, method: LinearMethod, experts: Experts) -> ExpertBlock:
        """The block made from the tensors of one layer, named as in `weights.py`."""
        products = convert_experts(ExpertStacks.of(named, experts.count), method, experts.gate)
        choice, shared = ExpertChoice.of(named, method, experts), SharedExpert.of(named, method, experts)
        return cls(experts, choice, products, shared)

    def apply(self, x: Tensor, batch: ForwardBatch) -> Tensor:
        """The router's choice for each row, then the experts' results added up."""
        lap = batch.spans.lap
        ids, shares = lap("router", self.choice.choose(x))
        mixed = lap("experts", self._sum(x, ids, shares))
        return mixed if self.shared is None else lap("shared", mixed + self.shared.apply(x))

    def summed(self) -> SummedExperts:
        """The block with one sum over all ranks for all experts."""
        return SummedExperts(self)

    def _sum(self, x: Tensor, ids: Tensor, shares: Tensor) -> Tensor:
        """What the experts of each row (int64 `[rows, per_token]`) make of it, added up by their shares."""
        sorted_ids, order = ids.flatten().sort(stable=True)
        every = torch.arange(self.experts.count, device=x.device)
        ends = torch.searchsorted(sorted_ids, every, right=True)
        parts = self.products.apply(x, order // self.experts.per_token, ends)
        places = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
        return weighted_sum(parts, places.view(ids.shape), shares)


@dataclass(frozen=True, slots=True)
class SummedExperts:
    """Experts of which each rank has a part: the ranks' results are added up once, not for each expert."""

    part: ExpertBlock

    def apply(self, x: Tensor, batch: ForwardBatch) -> Tensor:
        """The sum of all ranks' blocks."""
        return batch.spans.lap("experts", add_up(self.part.apply(x, batch)))

    def summed(self) -> SummedExperts:
        """The block itself, which adds up already."""
        return self

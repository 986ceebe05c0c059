"""Mixtures of experts: a router chooses some experts for each row, whose results are added up (Mixtral, 2401.04088).

Nothing here depends on the number of rows an expert gets, and none is turned away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from umbel.ir.experts import Experts
from umbel.kernels.experts import weighted_sum
from umbel.linear.base import LinearMethod, Table, Weights
from umbel.linear.experts import ExpertProducts, convert_experts
from umbel.linear.summed import add_up
from umbel.models.batch import ForwardBatch

STORED: Mapping[str, tuple[str, str, str, str]] = MappingProxyType({
    "mixtral": ("block_sparse_moe", "w1", "w3", "w2"),
    "qwen3_moe": ("mlp", "gate_proj", "up_proj", "down_proj"),
})  # fmt: skip
"""By family, what a checkpoint calls the block, and gate, up and down of an expert."""


@dataclass(frozen=True, slots=True)
class ExpertBlock:
    """Experts of a layer. The router is a table, so that it stays as it is under every method, and gives float32."""

    experts: Experts
    router: Table
    products: ExpertProducts

    @classmethod
    def of(cls, named: Weights, method: LinearMethod, experts: Experts) -> ExpertBlock:
        """The block made from the tensors of one layer, named as in `weights.py`."""
        router, *stacks = (named[name] for name in ("router", "experts_gate_up", "experts_down"))
        gate_up, down = (stack.view(experts.count, -1, stack.shape[1]) for stack in stacks)
        return cls(experts, method.convert_table(router), convert_experts(gate_up, down, method))

    def apply(self, x: Tensor, batch: ForwardBatch) -> Tensor:
        """The router's choice for each row, then the experts' results added up."""
        lap = batch.spans.lap
        ids, shares = lap("router", choose_experts(self.router.logits(x), self.experts))
        return lap("experts", self._sum(x, ids, shares))

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


def choose_experts(logits: Tensor, experts: Experts) -> tuple[Tensor, Tensor]:
    """The experts of each row of float32 logits (`[rows, experts]`), the likeliest first and of equal ones the first,
    and their shares: int64 and float32 `[rows, per_token]`."""
    likely, ids = logits.softmax(-1).sort(stable=True, dim=-1, descending=True)
    shares, ids = likely[:, : experts.per_token], ids[:, : experts.per_token]
    return ids, shares / shares.sum(-1, keepdim=True) if experts.renormalised else shares


def stored_names(family: str, experts: int) -> dict[str, tuple[str, ...]]:
    """What a checkpoint calls the tensors that ours of one layer's experts stack, expert by expert; relative to the
    layer, without ".weight"."""
    block, gate, up, down = STORED[family]
    names = [f"{block}.experts.{i}" for i in range(experts)]
    return {
        "router": (f"{block}.gate",),
        "experts_gate_up": tuple(f"{name}.{half}" for name in names for half in (gate, up)),
        "experts_down": tuple(f"{name}.{down}" for name in names),
    }

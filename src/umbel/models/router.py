"""Routers of mixtures of experts: which experts each row passes through, and which share each of them has.

A row's choice depends on nothing but its own logits. Of equally good experts, or groups, the first are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from umbel.ir.experts import Experts, Router
from umbel.kernels.reference import sigmoid
from umbel.linear.base import LinearMethod, Table, Weights
from umbel.linear.dense import DenseMethod

_SCORES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": sigmoid,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExpertChoice:
    """The router of a layer: a table, so that it stays as it is under every method, and gives float32; its bias and its
    correction are float32 `[experts]`."""

    experts: Experts
    table: Table
    bias: Tensor | None
    correction: Tensor | None

    @classmethod
    def of(cls, named: Weights, method: LinearMethod, experts: Experts) -> ExpertChoice:
        """The router made from the tensors of one layer."""
        weight, widened = named["router"], ("router_bias", "router_correction")
        if experts.router.in_float32 and weight.dtype != torch.float32:
            weight, method = weight.to(torch.float32), DenseMethod()
        bias, correction = (named[name].to(torch.float32) if name in named else None for name in widened)
        return cls(experts, method.convert_table(weight), bias, correction)

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The experts of rows (`[rows, hidden]`) and their shares: int64 and float32 `[rows, per_token]`."""
        logits = self.table.logits(x.to(torch.float32) if self.experts.router.in_float32 else x)
        return choose_experts(logits if self.bias is None else logits + self.bias, self.experts, self.correction)


def choose_experts(logits: Tensor, experts: Experts, correction: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The experts of each row of float32 logits (`[rows, experts]`), the best first, and their shares: int64 and
    float32 `[rows, per_token]`."""
    router, each = experts.router, experts.per_token
    if router.scores == "sparsemixer":
        return _mix_sparsely(logits, each, router.band)
    scores = _SCORES[router.scores](logits)
    wanted = _in_best_groups(scores if correction is None else scores + correction, router)
    best, ids = wanted.sort(stable=True, dim=-1, descending=True)
    ids = ids[:, :each]
    shares = best[:, :each] if wanted is scores else scores.gather(1, ids)
    if router.normalised:
        shares = shares / _divisor(shares.sum(-1, keepdim=True), router)
    return ids, shares if router.scale == 1 else shares * router.scale


def _divisor(total: Tensor, router: Router) -> Tensor:
    """What shares that add up to `total` are divided by."""
    total = total.clamp_min(router.least_sum) if router.least_sum else total
    return total + router.epsilon if router.epsilon else total


def _in_best_groups(scores: Tensor, router: Router) -> Tensor:
    """The scores, -inf for experts outside of the best groups of their row."""
    if router.groups_used == router.groups:
        return scores
    grouped = scores.unflatten(1, (router.groups, -1))
    quality = grouped.sort(dim=-1, descending=True)[0][..., : router.group_best].sum(-1)
    best = quality.sort(stable=True, dim=-1, descending=True)[1][:, : router.groups_used]
    kept = torch.zeros_like(quality, dtype=torch.bool).scatter_(1, best, value=True)
    return grouped.masked_fill(~kept.unsqueeze(-1), -torch.inf).flatten(1)


def _mix_sparsely(logits: Tensor, each: int, band: float) -> tuple[Tensor, Tensor]:
    """One expert after another: the best of those that are left, with its share of a softmax over those of them that
    lie within `band` of it."""
    left, ids, shares = logits, [], []
    for _ in range(each):
        top, best = left.sort(stable=True, dim=-1, descending=True)
        best, top = best[:, :1], top[:, :1]
        distance = (top - logits) / torch.maximum(logits.abs(), top)
        ids.append(best)
        shares.append(left.masked_fill(distance > band, -torch.inf).softmax(-1).gather(1, best))
        left = left.scatter(1, best, -torch.inf)
    return torch.cat(ids, 1), torch.cat(shares, 1)

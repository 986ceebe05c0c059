"""The gated delta rule (2412.06464): keys and values of all tokens before, added up in a matrix that forgets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from umbel.ir.recurrence import Recurrence
from umbel.kernels.chain import run_chain
from umbel.kernels.change import Change
from umbel.kv.states import StatePlace
from umbel.models.recurrent import Convolution

LENGTH_EPS = 1e-6  # of the lengths of queries and keys


@dataclass(frozen=True, slots=True)
class GatedDelta:
    """`conv`: of queries, keys and values; `decay` and `step_bias` (float32 `[heads]`): how fast heads forget; `norm`
    (float32 `[value_dim]`): of what they read, before its gate."""

    own: Recurrence
    conv: Convolution
    decay: Tensor
    step_bias: Tensor
    norm: Tensor
    eps: float

    def apply(self, product: Tensor, place: StatePlace) -> Tensor:
        """Implement `Recurrent.apply`."""
        assert place.matrices is not None and place.chain is not None
        own, (mixed, gate, rate, step) = self.own, product.split(self.own.inputs, 1)
        mixed = F.silu(self.conv.apply(mixed, place).to(product.dtype)).float()
        keys = own.key_heads * own.key_dim
        q, k, v = mixed.split((keys, keys, own.width), 1)
        q, k = (_unit(each.unflatten(1, (own.key_heads, own.key_dim))) for each in (q, k))
        decay = (-self.decay.exp() * F.softplus(step.float() + self.step_bias)).exp()
        values = v.unflatten(1, (own.heads, own.value_dim)).contiguous()
        change = Change(q * own.key_dim**-0.5, k, values, decay, rate.sigmoid().float().contiguous())
        return self._gated(run_chain(place.matrices, place.chain, change).to(product.dtype), gate).flatten(1)

    def _gated(self, x: Tensor, gate: Tensor) -> Tensor:
        """The norm of each head (`[rows, heads, value_dim]`), times what lets it through."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        opened = F.silu(gate.float()).view_as(wide)
        return ((self.norm * normed.to(x.dtype)) * opened).to(x.dtype)


def _unit(x: Tensor) -> Tensor:
    """Vectors of length 1."""
    return (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + LENGTH_EPS)).contiguous()

"""The gated delta rule (2412.06464): keys and values of all tokens before, added up in a matrix that forgets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.ir.recurrence import Recurrence
from umbel.kernels.activations import silu, softplus
from umbel.kernels.chain import run_chain
from umbel.kernels.change import Change
from umbel.kernels.reference import sigmoid
from umbel.kernels.rows import rms_norm
from umbel.kv.states import StatePlace
from umbel.linear.base import Weights
from umbel.models.norms import RmsNorm
from umbel.models.recurrent import Convolution

LENGTH_EPS = 1e-6  # of the squared lengths of queries and keys


@dataclass(frozen=True, slots=True)
class GatedDelta:
    """`conv`: of queries, keys and values; `decay` and `step_bias` (float32 `[heads]`): how fast heads forget; `norm`:
    of what each reads, before its gate."""

    own: Recurrence
    conv: Convolution
    decay: Tensor
    step_bias: Tensor
    norm: RmsNorm

    @classmethod
    def of(cls, named: Weights, own: Recurrence, eps: float) -> GatedDelta:
        """From the tensors of a layer, named as in `weights.py`."""
        norm = RmsNorm(named["out_norm"].to(named["qkv"].dtype), eps)
        return cls(own, Convolution.of(named), named["decay"], named["step_bias"], norm)

    def apply(self, product: Tensor, place: StatePlace) -> Tensor:
        """Implement `Recurrent.apply`."""
        assert place.matrices is not None and place.chain is not None
        own, (mixed, gate, rate, step) = self.own, product.split(self.own.inputs, 1)
        mixed = silu(self.conv.apply(mixed, place).to(product.dtype)).float()
        keys = own.key_heads * own.key_dim
        q, k, v = mixed.split((keys, keys, own.width), 1)
        decay = torch.exp(-torch.exp(self.decay) * softplus(step.float() + self.step_bias))
        values = v.unflatten(1, (own.heads, own.value_dim)).contiguous()
        rates = sigmoid(rate.float()).contiguous()
        change = Change(self._unit(q, own.key_dim**-0.5), self._unit(k, 1.0), values, decay, rates)
        read = run_chain(place.matrices, place.chain, change).to(product.dtype)
        return (self.norm.apply(read).flatten(1).float() * silu(gate.float())).to(product.dtype)

    def _unit(self, x: Tensor, length: float) -> Tensor:
        """Heads of queries or keys (`[rows, key_heads, key_dim]`) with all of one length."""
        size = self.own.key_dim
        weight = x.new_full((size,), length * size**-0.5)
        return rms_norm(x.unflatten(1, (self.own.key_heads, size)).contiguous(), weight, LENGTH_EPS / size)


def by_part(stacked: Tensor, own: Recurrence) -> Tensor:
    """The rows of the product before a rule, in which each head of keys has its own side by side, as `own.inputs`."""
    each = own.heads // own.key_heads
    wide, small = stacked.split(own.stacked)
    inner = (own.key_dim, own.key_dim, each * own.value_dim, each * own.value_dim)
    parts = (
        *wide.unflatten(0, (own.key_heads, -1)).split(inner, 1),
        *small.unflatten(0, (own.key_heads, -1)).chunk(2, 1),
    )
    return torch.cat([part.flatten(0, 1) for part in parts])

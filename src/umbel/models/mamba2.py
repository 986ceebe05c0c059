"""Mamba-2 (2405.21060): a matrix of each head fades and takes up one token after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.ir.recurrence import Recurrence
from umbel.kernels.activations import silu, softplus
from umbel.kernels.chain import run_chain
from umbel.kernels.change import Change
from umbel.kernels.rows import rms_norm
from umbel.kv.states import StatePlace
from umbel.linear.base import Weights
from umbel.models.recurrent import Convolution


@dataclass(frozen=True, slots=True)
class Mamba2:
    """`conv`: of what is taken up, where, and what is asked; `decay`, `step_bias` and `skip` (float32 `[heads]`): how
    fast heads forget, and how much of its own token each gives; `norm` (float32 `[width]`): behind the gate, of the
    heads of each group."""

    own: Recurrence
    conv: Convolution
    decay: Tensor
    step_bias: Tensor
    skip: Tensor
    norm: Tensor
    eps: float

    @classmethod
    def of(cls, named: Weights, own: Recurrence, eps: float) -> Mamba2:
        """From the tensors of a layer, named as in `weights.py`."""
        vectors = (named[name] for name in ("decay", "step_bias", "skip", "out_norm"))
        return cls(own, Convolution.of(named), *vectors, eps)

    def apply(self, product: Tensor, place: StatePlace) -> Tensor:
        """Implement `Recurrent.apply`."""
        assert place.matrices is not None and place.chain is not None
        own, (gate, mixed, step) = self.own, product.split(self.own.inputs, 1)
        mixed, keys = silu(self.conv.apply(mixed, place).to(product.dtype)).float(), own.key_heads * own.key_dim
        x, k, q = mixed.split((own.width, keys, keys), 1)
        q, k = (each.unflatten(1, (own.key_heads, own.key_dim)).contiguous() for each in (q, k))
        step, x = softplus(step.float() + self.step_bias), x.unflatten(1, (own.heads, own.value_dim))
        decay = torch.exp(-torch.exp(self.decay) * step)
        read = run_chain(place.matrices, place.chain, Change(q, k, x * step.unsqueeze(-1), decay))
        return self._normed((read + self.skip.unsqueeze(-1) * x).flatten(1), gate).to(product.dtype)

    def _normed(self, x: Tensor, gate: Tensor) -> Tensor:
        """What passes the gate, normed by groups (float32 `[rows, width]`)."""
        groups = (x * silu(gate.float())).unflatten(1, (self.own.key_heads, -1))
        return rms_norm(groups, torch.ones_like(groups[0, 0]), self.eps).flatten(1) * self.norm

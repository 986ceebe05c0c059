"""Matrices that rows change one after the other: by compiled kernels on a processor, else in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from umbel.kernels.change import Chain, Change
from umbel.kernels.dispatch import kernels_for


def run_chain(matrices: Tensor, chain: Chain, change: Change) -> Tensor:
    """What each row's queries read of its matrices (float32 `[rows, heads, value_dim]`) once it has changed them, in
    their pages of `matrices` (float32 `[pages, heads, key_dim, value_dim]`)."""
    fast = kernels_for(matrices, change.queries, change.keys, change.values, change.decay)
    if fast is not None and fast.on_host:
        return fast.run_chain(matrices, chain, change)
    return reference(matrices, chain, change)


def reference(matrices: Tensor, chain: Chain, change: Change) -> Tensor:
    """The same in plain torch, wave by wave."""
    shared = matrices.shape[1] // change.keys.shape[1]
    queries, keys = (each.repeat_interleave(shared, 1).unsqueeze(-1) for each in (change.queries, change.keys))
    out = torch.empty_like(change.values)
    for rows in chain.waves():
        source, target = chain.source[rows], chain.target[rows]
        old = matrices[source.clamp_min(0)]
        old = torch.where((source < 0).view(-1, 1, 1, 1), 0.0, old)
        new = old * change.decay[rows].unsqueeze(-1).unsqueeze(-1)
        value = change.values[rows]
        if change.rates is not None:
            value = (value - (new * keys[rows]).sum(-2)) * change.rates[rows].unsqueeze(-1)
        new = torch.where((target < 0).view(-1, 1, 1, 1), old, new + keys[rows] * value.unsqueeze(-2))
        out[rows] = (new * queries[rows]).sum(-2)
        kept = (target >= 0).nonzero().squeeze(1)
        matrices[target[kept]] = new[kept]
    return out

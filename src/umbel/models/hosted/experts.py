"""The products of experts in modules of transformers: expert by expert, each row with bits of its own on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from umbel.linear.dense import linear

NAME = "umbel"


def apply_experts(module: nn.Module, hidden: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
    """What the experts `chosen` for rows (int64 `[rows, k]`) make of `hidden` `[rows, width]`, added up by their
    `shares` `[rows, k]`; as `batched_mm_experts_forward` in transformers computes it."""
    if hidden.is_meta:
        return torch.empty_like(hidden)
    rows, k = chosen.shape
    experts, order = chosen.reshape(-1).sort(stable=True)
    out = hidden.new_empty(rows * k, hidden.shape[-1])
    found, counts = torch.unique_consecutive(experts, return_counts=True)
    for expert, at in zip(found.tolist(), order.split(counts.tolist()), strict=True):
        out[at] = _apply_one(module, expert, hidden[at // k])
    weighted = out * shares.reshape(-1, 1)
    return weighted.view(rows, k, -1).sum(dim=1).to(hidden.dtype)


def register() -> None:
    """Make the function known to transformers."""
    ALL_EXPERTS_FUNCTIONS.register(NAME, apply_experts)


def _apply_one(module: nn.Module, expert: int, x: Tensor) -> Tensor:
    """One expert on its rows."""
    inner = _product(module, "gate_up_proj" if module.has_gate else "up_proj", expert, x)
    inner = module._apply_gate(inner) if module.has_gate else module.act_fn(inner)
    out = _product(module, "down_proj", expert, inner)
    return module.post_expert_norm(out) if module.has_post_expert_norm else out


def _product(module: nn.Module, name: str, expert: int, x: Tensor) -> Tensor:
    weight = getattr(module, name)[expert]
    bias = getattr(module, f"{name}_bias")[expert] if module.has_bias else None
    return linear(x, weight.T if module.is_transposed else weight, bias)

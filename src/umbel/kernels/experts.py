"""What mixtures of experts do beside products: rows by expert in one launch, and what experts say added up."""

from __future__ import annotations

from torch import Tensor

from umbel.kernels import reference
from umbel.kernels.dispatch import kernels_for


def has_grouped_products(weights: Tensor) -> bool:
    """Whether a kernel multiplies with these weights of several experts in one launch."""
    fast = kernels_for(weights)
    return fast is not None and fast.groups_experts


def multiply_by_expert(x: Tensor, weights: Tensor, ends: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x[r] @ weights[e].T + bias[e]` for rows (`[rows, inputs]`) that stand sorted by expert, those of each up to
    `ends[e]` (int64 `[experts]`): `[rows, outputs]` of `weights` `[experts, outputs, inputs]`."""
    fast = kernels_for(x, weights)
    if fast is None or not fast.groups_experts:
        return reference.by_expert(x, weights, ends, bias)
    return fast.multiply_by_expert(x, weights, ends, bias)


def gated_clamped(gate_up: Tensor, alpha: float, limit: float) -> Tensor:
    """gpt-oss's gate (`ir.experts.ClampedGate`): [rows, 2 * width] -> [rows, width]."""
    fast = kernels_for(gate_up)
    if fast is None or not fast.groups_experts:
        return reference.gated_clamped(gate_up, alpha, limit)
    return fast.gated_clamped(gate_up, alpha, limit)


def weighted_sum(parts: Tensor, places: Tensor, shares: Tensor) -> Tensor:
    """For each row the rows of `parts` (`[n, width]`) at its `places` (int64 `[rows, each]`), times its `shares`
    (float32 of the same shape), added up in float32 from the first to the last: `[rows, width]`."""
    fast = kernels_for(parts)
    if fast is None or not fast.groups_experts:
        return reference.weighted_sum(parts, places, shares)
    return fast.weighted_sum(parts, places, shares)

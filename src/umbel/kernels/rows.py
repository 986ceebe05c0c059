"""Operations on rows, by the kernels that `dispatch` chose: compiled ones, Triton's on a GPU, else plain torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from umbel.kernels import reference
from umbel.kernels.dispatch import kernels, kernels_for

# Draws made at a time in plain torch: a copy of the logits for each would fill the memory.
_BLOCK = 64


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`weight * x / rms(x)` along the last axis."""
    return (kernels_for(x, weight) or reference).rms_norm(x, weight, eps)


def add_rms_norm(x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`x + delta`, and its `rms_norm`."""
    fast = kernels_for(x, delta, weight)
    if fast is None:
        total = x + delta
        return total, reference.rms_norm(total, weight, eps)
    return fast.add_rms_norm(x, delta, weight, eps)


def gated_silu(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up`: [rows, 2 * intermediate] -> [rows, intermediate]."""
    return (kernels_for(gate_up) or reference).gated_silu(gate_up)


def turn_heads(
    heads: Tensor, n_q: int, n_k: int, angles: tuple[Tensor, Tensor], norms: tuple[Tensor, Tensor] | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of `heads` ([rows, n_q + 2 * n_k, head_dim], may be overwritten), the first two normed
    with the weights in `norms`, where given, and turned by `angles` (cosines and sines, [rows, 1, head_dim / 2])."""
    if (fast := kernels_for(heads, *angles, *(norms or ()))) is not None:
        fast.rotate(heads, (n_q, n_k), angles, norms, eps)
        return heads.split((n_q, n_k, n_k), dim=1)
    q, k, v = heads.split((n_q, n_k, n_k), dim=1)
    if norms is not None:
        q, k = reference.rms_norm(q, norms[0], eps), reference.rms_norm(k, norms[1], eps)
    return reference.rotate(q, *angles), reference.rotate(k, *angles), v


def draw(
    logits: Tensor,
    rows: np.ndarray,
    best: np.ndarray,
    heat: np.ndarray,
    dice: np.ndarray,
    filters: reference.Filters | None = None,
) -> np.ndarray:
    """Ids drawn from the softmax of some rows (`[k]`) of `logits`, whose largest values are at `best`, at temperatures
    `heat`, from what the filters leave (None: from all); `dice` are uniform numbers."""
    fast = kernels_for(logits) if logits.dtype == torch.float32 else None
    if fast is not None and (filters is None or fast.filters):
        return fast.draw(logits, rows, best, heat, dice, filters)
    ids = np.empty(len(rows), np.int64)
    for low in range(0, len(rows), _BLOCK):
        at = slice(low, low + _BLOCK)
        chosen, warm, thrown = (torch.from_numpy(column[at]).to(logits.device) for column in (rows, heat, dice))
        weights = reference.weights(logits[chosen], warm.to(torch.float32).unsqueeze(-1))
        if filters is not None:
            weights = reference.filtered(weights, tuple(column[at] for column in filters))
        ids[at] = reference.invert(weights, thrown.unsqueeze(-1)).cpu().numpy()
    return ids


def largest(logits: Tensor, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of some rows (`[k]`) of `logits`: where the largest value is, the first of equal ones, and whether it is not
    finite."""
    native = kernels().native
    if native is not None and logits.dtype == torch.float32 and native.takes(logits):
        return native.argmax(logits, rows)
    ids, bad = reference.largest(logits)
    return ids.cpu().numpy()[rows], bad.cpu().numpy()[rows]

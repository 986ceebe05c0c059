"""Sinks of attention: a learned score of each head that belongs to no key and takes its share of the softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from umbel.ir.kv_shape import KVShape


def check_sinks(shape: KVShape, sinks: Tensor | None) -> None:
    """Raise ValueError where a layer's sinks are not what its shape says: float32 `[n_heads]`, or None."""
    if sinks is None and not shape.sinks:
        return
    if sinks is None or not shape.sinks or sinks.shape != (shape.n_heads,) or sinks.dtype != torch.float32:
        found = None if sinks is None else (tuple(sinks.shape), sinks.dtype)
        raise ValueError(f"sinks {found}: the layer has {f'float32 [{shape.n_heads}]' if shape.sinks else 'none'}")

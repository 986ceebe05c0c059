"""What becomes of a layer's queries, keys and values between their product and attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.ir.layer import HeadNorm, Layer
from umbel.ir.spec import ModelSpec
from umbel.kernels import reference
from umbel.kernels.place import Place
from umbel.kernels.rotation import HeadRotation
from umbel.kernels.rows import norm_and_rotate
from umbel.linear.base import Weights
from umbel.models.norms import RowNorm, convert_norm
from umbel.models.rotary import Angles, halves_order


@dataclass(frozen=True, slots=True)
class LayerHeads:
    """Norms and rotation of `n_q` query and `n_k` key heads of `dim` numbers.

    `fused`: weights of norms that one kernel applies with the rotation. `norms`: other ones of queries and keys, of
    rows as they are (`over_all`) or by head; behind the rotation if `is_rotated`.
    """

    n_q: int
    n_k: int
    dim: int
    eps: float
    fused: tuple[Tensor, Tensor] | None = None
    norms: tuple[RowNorm, RowNorm] | None = None
    over_all: bool = False
    is_rotated: bool = False

    @classmethod
    def of(cls, named: Weights, spec: ModelSpec, layer: Layer) -> LayerHeads:
        """Those of a layer from its tensors, named as in `weights.py`."""
        sizes, own = (spec.n_heads, spec.n_kv_heads, spec.head_dim, spec.norm_eps), layer.head_norm
        if own is None:
            return cls(*sizes)
        order = halves_order(layer.rope, spec.head_dim)
        weights, biases = (
            tuple(_by_head(named.get(f"{kind}_norm{tail}"), order, spec.head_dim, own) for kind in "qk")
            for tail in ("", "_bias")
        )
        q_norm, k_norm = (convert_norm(own.norm, w, b, spec.norm_eps) for w, b in zip(weights, biases, strict=True))
        if own.over == "head" and not own.is_rotated and q_norm.fusible is not None and k_norm.fusible is not None:
            return cls(*sizes, fused=(q_norm.fusible, k_norm.fusible))
        return cls(*sizes, norms=(q_norm, k_norm), over_all=own.over == "all", is_rotated=own.is_rotated)

    def place(self, product: Tensor, angles: Angles, place: Place) -> Tensor:
        """Queries (`[rows, n_q, dim]`) of what the product gave for rows; keys and values are stored."""
        heads = product.view(len(product), -1, self.dim)
        rotation = HeadRotation(self.n_q, self.n_k, angles, self.fused, self.eps)
        if self.norms is None:
            return norm_and_rotate(heads, rotation, place)
        q, k, v = heads.split((self.n_q, self.n_k, self.n_k), dim=1)
        if not self.is_rotated:
            return norm_and_rotate(torch.cat((*self._normed(q, k), v), 1), rotation, place)
        q, k, v = reference.norm_and_rotate(heads, rotation)
        q, k = self._normed(q, k)
        place.write(k, v)
        return q

    def _normed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        assert self.norms is not None
        q, k = q.contiguous(), k.contiguous()  # a kernel takes only these, and one row alone always is
        if not self.over_all:
            return self.norms[0].apply(q), self.norms[1].apply(k)
        q_row, k_row = self.norms[0].apply(q.flatten(1)), self.norms[1].apply(k.flatten(1))
        return q_row.view_as(q), k_row.view_as(k)


def _by_head(tensor: Tensor | None, order: Tensor | None, dim: int, norm: HeadNorm) -> Tensor | None:
    """What a norm of heads has learned, in the order of their numbers, by head where heads have their own."""
    if tensor is None:
        return None
    by_head = tensor.view(-1, dim)
    by_head = by_head if order is None else by_head[:, order.to(tensor.device)]
    return by_head if norm.over == "heads" else by_head.flatten()

"""Latent attention (DeepSeek-V2, 2405.04434): a token's latent is stored, and read by all heads as key and as value.

A head's key is `up @ latent`, so that `query . (up @ latent)` is `(query @ up) . latent`: the products that would make
keys and values of every token are put into the query and behind the attention ("absorbed"). This is exact up to the
rounding of floats, whatever the step: what a row gets does not depend on whether it is a prompt's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from umbel.ir.latent import Latent
from umbel.ir.layer import Norm, Rope
from umbel.kernels.place import Place
from umbel.kernels.reference import rotate
from umbel.linear.base import Linear, LinearMethod
from umbel.models.norms import RowNorm, convert_norm
from umbel.models.rotary import Angles, halves_order


@dataclass(frozen=True, slots=True)
class HeadProducts:
    """A product of its own for each head, so that on a CPU a row's bits do not depend on the others."""

    each: tuple[Linear, ...]

    @classmethod
    def of(cls, weights: Tensor, method: LinearMethod) -> HeadProducts:
        """From `[heads, outputs, inputs]`."""
        return cls(tuple(method.convert(weight.contiguous()) for weight in weights))

    def apply(self, x: Tensor) -> Tensor:
        """`[rows, heads, inputs]` -> `[rows, heads, outputs]`."""
        return torch.stack([one.apply(x[:, head].contiguous()) for head, one in enumerate(self.each)], 1)


@dataclass(frozen=True, slots=True)
class LatentHeads:
    """What becomes of the product of a layer (queries, or what they are made from; latents; what turns of keys) between
    it and attention. `q_norm`, `q_up`: None where the product gives queries. `key_up`: of queries, into the latent."""

    latent: Latent
    n_heads: int
    kv_norm: RowNorm
    key_up: HeadProducts
    q_norm: RowNorm | None = None
    q_up: Linear | None = None

    def place(self, product: Tensor, angles: Angles, place: Place) -> Tensor:
        """Queries of latents (`[rows, n_heads, kv_rank + rope_dim]`) of what the product gave for rows (`[rows, q_rank
        or n_heads * query_dim, then kv_rank + rope_dim]`); what is read of the rows is stored."""
        sizes = self.latent
        made_from, latents, turning = product.split(
            (product.shape[1] - sizes.kv_rank - sizes.rope_dim, sizes.kv_rank, sizes.rope_dim), 1
        )
        cos, sin = (each[..., : sizes.rope_dim // 2] for each in angles)
        key = rotate(turning.unsqueeze(1), cos, sin)
        place.write(torch.cat((self.kv_norm.apply(latents.contiguous()).unsqueeze(1), key), 2), None)
        plain, turning = self._queries(made_from).split((sizes.plain_dim, sizes.rope_dim), 2)
        return torch.cat((self.key_up.apply(plain), rotate(turning, cos, sin)), 2)

    def _queries(self, made_from: Tensor) -> Tensor:
        if self.q_up is not None and self.q_norm is not None:
            made_from = self.q_up.apply(self.q_norm.apply(made_from.contiguous()))
        return made_from.view(len(made_from), self.n_heads, self.latent.query_dim)


@dataclass(frozen=True, slots=True)
class LatentOutput:
    """The values of heads from what they read of latents, and the product behind the attention."""

    value_up: HeadProducts
    o: Linear

    def apply(self, x: Tensor) -> Tensor:
        """`[rows, n_heads * kv_rank]` -> `[rows, hidden]`."""
        return self.o.apply(self.value_up.apply(x.unflatten(1, (len(self.value_up.each), -1))).flatten(1))


@dataclass(frozen=True, slots=True)
class LatentWeights:
    """The tensors of such a layer as a checkpoint has them: `qkv` (queries or what they are made from, latents, what
    turns of keys), `kv_up` (`[n_heads * (plain_dim + value_dim), kv_rank]`: of each head its key's rows, then its
    value's), `o`, weights of norms, and `q_up` where queries are made from fewer numbers."""

    qkv: Tensor
    kv_up: Tensor
    kv_norm: Tensor
    o: Tensor
    q_up: Tensor | None = None
    q_norm: Tensor | None = None

    def in_halves(self, latent: Latent, rope: Rope) -> LatentWeights:
        """With what turns in the order in which `kernels/reference.rotate` pairs it."""
        order = halves_order(replace(rope, dim=None), latent.rope_dim)
        if order is None:
            return self
        order, last = order.to(self.qkv.device), latent.rope_dim
        key = self.qkv[-last:][order]
        queries = self.q_up if self.q_up is not None else self.qkv[: -latent.kv_rank - last]
        heads = queries.unflatten(0, (-1, latent.query_dim))
        turned = torch.cat((heads[:, : latent.plain_dim], heads[:, latent.plain_dim :][:, order]), 1).flatten(0, 1)
        if self.q_up is not None:
            return replace(self, qkv=torch.cat((self.qkv[:-last], key)), q_up=turned)
        return replace(self, qkv=torch.cat((turned, self.qkv[-latent.kv_rank - last : -last], key)))


def convert_latent(
    weights: LatentWeights, latent: Latent, rope: Rope, eps: float, method: LinearMethod
) -> tuple[Linear, LatentHeads, LatentOutput]:
    """The product, heads and output of a layer with latent attention."""
    own = weights.in_halves(latent, rope)
    by_head = own.kv_up.unflatten(0, (-1, latent.plain_dim + latent.value_dim))
    keys, values = by_head.split((latent.plain_dim, latent.value_dim), 1)
    heads = LatentHeads(
        latent,
        len(by_head),
        convert_norm(Norm(), own.kv_norm, None, eps),
        HeadProducts.of(keys.transpose(1, 2), method),
        None if own.q_norm is None else convert_norm(Norm(), own.q_norm, None, eps),
        None if own.q_up is None else method.convert(own.q_up),
    )
    return method.convert(own.qkv), heads, LatentOutput(HeadProducts.of(values, method), method.convert(own.o))

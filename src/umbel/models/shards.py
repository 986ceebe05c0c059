"""Tensor parallelism by a transform of weights: a rank's share of all products, for a decoder that knows nothing of it.

As in Megatron-LM (arXiv 1909.08053): queries, keys, values, gate and up are cut by outputs, whole heads each; the
products behind them by inputs, so that the ranks' results are added up (`linear/summed.py`). Experts are cut like the
gate, each of them. Norms, embedding, routers and head are on every rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from umbel.errors import UsageError
from umbel.ir.architecture import Matmul, layer_matmuls, layer_norms
from umbel.ir.spec import ModelSpec
from umbel.kernels.int4 import Int4Weight
from umbel.linear.base import LinearMethod, Weights
from umbel.linear.experts import check_experts
from umbel.linear.summed import SummedLinear
from umbel.models.decoder import Decoder


@dataclass(frozen=True, slots=True)
class Shard:
    """Rank `rank` of `count`."""

    rank: int = 0
    count: int = 1


def shard_spec(spec: ModelSpec, count: int) -> ModelSpec:
    """The shape of one of `count` equal shards; raises UsageError when heads, the gate or experts cannot be cut so."""
    parts = {"n_heads": spec.n_heads, "n_kv_heads": spec.n_kv_heads}
    experts = spec.experts
    if experts is None or experts.dense_layers:
        parts["intermediate_size"] = spec.intermediate_size
    widths = {"width": experts.width, "shared_width": experts.shared_width} if experts else {}
    for name, size in (*parts.items(), *((f"the {name} of experts", size) for name, size in widths.items())):
        if size % count:
            raise UsageError(f"tensor_parallel_size={count}: {name} is {size}, which it must divide")
    if count > 1 and any(layer.head_norm and layer.head_norm.over == "all" for layer in spec.layers):
        raise UsageError(f"tensor_parallel_size={count}: norms over all heads of a row cannot be cut: leave it out")
    if count > 1 and any(layer.latent for layer in spec.layers):
        raise UsageError(f"tensor_parallel_size={count}: latent attention is not cut: leave it out")
    if count > 1 and spec.recurrences:
        raise UsageError(f"tensor_parallel_size={count}: layers with a recurrence are not cut: leave it out")
    form = spec.quantization
    for name, inputs in (("o", spec.n_heads * spec.head_dim), ("down", spec.intermediate_size)):
        if form and not form.act_order and inputs // count % form.group_of(inputs):
            group = form.group_of(inputs)
            raise UsageError(
                f"tensor_parallel_size={count} cuts the {inputs} inputs of {name} inside groups of {group}"
            )
    cut = experts and replace(experts, **{name: size // count for name, size in widths.items()})
    return replace(spec, **{name: size // count for name, size in parts.items()}, experts=cut)


class ShardedWeights(Mapping[str, Tensor | Int4Weight]):
    """One rank's share of the tensors that `StoredWeights` or `dummy_weights` hold for the whole `spec`."""

    def __init__(self, weights: Weights, spec: ModelSpec, shard: Shard):
        self.weights, self.shard = weights, shard
        self._products = {
            f"layers.{layer}.{m.name}": m for layer in range(spec.n_layers) for m in layer_matmuls(spec, layer)
        }
        self._by_head = {
            f"layers.{layer}.{name}"
            for layer in range(spec.n_layers)
            for name in ("sinks", *(n.name for n in layer_norms(spec, layer) if n.is_by_head))
        }

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __getitem__(self, name: str) -> Tensor | Int4Weight:
        weight, product = self.weights[name], self._products.get(name.removesuffix("_bias"))
        if name in self._by_head and isinstance(weight, Tensor):
            return self._part(weight, 0)
        if product is None:
            return weight
        if isinstance(weight, Int4Weight):
            return weight.each(lambda tensor: self._share(product, tensor))  # shard_spec has seen to whole groups
        return self._share(product, weight)

    def _share(self, product: Matmul, tensor: Tensor) -> Tensor:
        """This rank's share of the weights or the bias of a product."""
        if product.cut == "outputs":
            parts = tensor.split(list(product.parts * product.experts))
            return torch.cat([self._part(part, 0) for part in parts])
        if product.cut == "inputs" and tensor.ndim == 2:
            return self._part(tensor, 1).contiguous()
        if product.cut == "inputs" and self.shard.rank > 0:
            return torch.zeros_like(tensor)  # a bias is added once
        return tensor

    def _part(self, tensor: Tensor, axis: int) -> Tensor:
        return tensor.chunk(self.shard.count, axis)[self.shard.rank]


def build_shard(spec: ModelSpec, weights: Weights, shard: Shard, device: torch.device, method: LinearMethod) -> Decoder:
    """The decoder of one shard of a model of shape `spec`, with the ranks' results added up where its products were cut
    by inputs; of one rank, simply the decoder. Raises UsageError for a method that this model cannot have there."""
    if spec.experts:
        check_experts(method, device)
    if shard.count == 1:
        return Decoder(spec, weights, device, method)
    decoder = Decoder(shard_spec(spec, shard.count), ShardedWeights(weights, spec, shard), device, method)
    decoder.layers = tuple(replace(w, o=SummedLinear(w.o), block=w.block.summed()) for w in decoder.layers)
    return decoder

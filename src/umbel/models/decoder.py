"""One decoder-only transformer, driven by a spec; attention and its KV memory belong to the caller."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from umbel.attention.base import AttentionBackend
from umbel.ir.spans import NO_SPANS, Spans
from umbel.ir.spec import ModelSpec
from umbel.kernels.workers import in_order
from umbel.linear.base import LinearMethod, Weights
from umbel.linear.dense import DenseMethod
from umbel.linear.lora import RowAdapters
from umbel.models.batch import ForwardBatch
from umbel.models.layers import LayerWeights
from umbel.models.norms import RowNorm, Scaled, convert_norm
from umbel.models.rotary import frequencies_of


class Decoder:
    """Runs packed rows, the tokens of any number of sequences, through a range of layers.

    Whole forwards, layer groups and early exits are calls of `forward` with other ranges. Call it under
    `torch.inference_mode()`. `weights` are what `StoredWeights` or `dummy_weights` hold for the same spec; each
    is asked for once and converted by `method`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: Weights,
        device: torch.device | str = "cpu",
        method: LinearMethod | None = None,
    ):
        self.spec = spec
        self.device = torch.device(device)
        method = method or DenseMethod()
        embed = weights["embed"].to(self.device)
        self.dtype = embed.dtype  # of weights and hidden states
        self.embedding = method.convert_table(embed)  # first: while there is little else, there is room for two of it
        del embed
        own = {n: weights[n].to(self.device) for n in weights if "." not in n and n not in ("embed", "head")}
        self.adapters: RowAdapters | None = None
        self.final_norm = convert_norm(spec.layers[-1].norm, own.get("norm"), own.get("norm_bias"), spec.norm_eps)
        self.head = self.embedding
        if not spec.tied_embeddings:
            self.head = method.convert_table(weights["head"].to(self.device))
        self.layers = tuple(in_order(self._layer_of(weights, method), spec.n_layers, self.device))
        self.classes = method.convert_table(own["classes"]) if "classes" in own else None
        self.positions, self.head_bias = own.get("positions"), own.get("head_bias")
        self.frequencies = tuple(frequencies_of(spec, rope).to(self.device) for rope in spec.ropes)

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Token ids (int64 `[rows]`) at `positions` (int64 `[rows]`) to hidden states `[rows, hidden]`."""
        hidden, edges = self.embedding.rows(tokens), self.spec.edges
        if edges.embedding_scale != 1.0:
            hidden = hidden * torch.tensor(edges.embedding_scale, dtype=self.dtype)
        if self.positions is None or edges.position_offset is None:
            return hidden
        return hidden + F.embedding(positions + edges.position_offset, self.positions)

    def batch(self, positions: Tensor, wanted: Tensor | None = None, spans: Spans = NO_SPANS) -> ForwardBatch:
        """What `forward` must know of rows at `positions` (int64 `[rows]`); see ForwardBatch for the others."""
        angles = tuple(each.angles(positions, self.dtype) for each in self.frequencies)
        scales = tuple(each.query_scales(positions, self.dtype) for each in self.frequencies)
        return ForwardBatch(spans.lap("rotary", angles), wanted, spans, scales)

    def forward(
        self, hidden: Tensor, batch: ForwardBatch, attention: AttentionBackend, layers: range | None = None
    ) -> Tensor:
        """Run `layers` (all by default) on rows (`[rows, hidden]`), laid out in `attention`: gives the wanted ones."""
        hidden, delta = self.run_layers(hidden, batch, attention, layers)
        return hidden if delta is None else batch.spans.lap("norms", hidden + delta)

    def run_layers(
        self, hidden: Tensor, batch: ForwardBatch, attention: AttentionBackend, layers: range | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The same before the last sum: hidden states, and what is still to be added to them."""
        lap = batch.spans.lap
        layers = range(self.spec.n_layers) if layers is None else layers
        delta = None  # what the block before adds to `hidden`: added where the next block norms it
        for layer in layers:
            w = self.layers[layer]
            hidden, normed = lap("norms", _normed(w.attn_norm, hidden, delta))
            attended = w.mixing.apply(lap("qkv", w.qkv.apply(normed)), batch, attention)
            if batch.wanted is not None and layer == layers[-1]:
                wanted = batch.wanted
                hidden, attended, normed = hidden[wanted], attended[wanted], normed[wanted] if w.is_parallel else normed
            hidden, delta = _ended(w, hidden, normed, attended, batch)
        return hidden, delta

    def logits(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """Final norm and head for the rows given (`[k, hidden]`): float32 `[k, vocab]`, maybe put into `out`."""
        logits, edges = self.head.logits(self.final_norm.apply(hidden), out), self.spec.edges
        if self.head_bias is not None:
            logits += self.head_bias
        if edges.logit_scale != 1.0:
            logits *= edges.logit_scale
        return logits if edges.logit_cap is None else logits.div_(edges.logit_cap).tanh_().mul_(edges.logit_cap)

    def pool(self, hidden: Tensor) -> Tensor:
        """Vectors for the rows given (`[k, hidden]`): their final norm, or what the head for classes makes of it;
        float32 `[k, hidden]` or `[k, classes]`."""
        normed = self.final_norm.apply(hidden)
        return normed.float() if self.classes is None else self.classes.logits(normed)

    def _layer_of(self, weights: Weights, method: LinearMethod) -> Callable[[int], LayerWeights]:
        """Makes a layer by its number, from the tensors that are named `layers.<number>.*`."""

        def layer_of(layer: int) -> LayerWeights:
            prefix = f"layers.{layer}."
            named = {n.removeprefix(prefix): weights[n].to(self.device) for n in weights if n.startswith(prefix)}
            return LayerWeights.of(named, method, self.spec, self.spec.layer(layer), self.spec.number(layer))

        return layer_of


def _normed(norm: RowNorm, hidden: Tensor, delta: Tensor | None) -> tuple[Tensor, Tensor]:
    """Hidden states with what is to be added, and their norm."""
    return (hidden, norm.apply(hidden)) if delta is None else norm.add(hidden, delta)


def _ended(
    w: LayerWeights, hidden: Tensor, normed: Tensor, attended: Tensor, batch: ForwardBatch
) -> tuple[Tensor, Tensor]:
    """What follows the attention in a layer: hidden states, and what is still to be added to them."""
    lap = batch.spans.lap
    added = _behind(w.attn_post, lap("o", w.o.apply(attended)), batch)
    if not w.is_parallel:
        assert w.mlp_norm is not None
        hidden, normed = lap("norms", w.mlp_norm.add(hidden, added))
        return hidden, _behind(w.block_post, w.block.apply(normed, batch), batch)
    read = normed if w.mlp_norm is None else lap("norms", w.mlp_norm.apply(hidden))
    return hidden, lap("norms", added + _behind(w.block_post, w.block.apply(read, batch), batch))


def _behind(post: RowNorm | Scaled | None, x: Tensor, batch: ForwardBatch) -> Tensor:
    return x if post is None else batch.spans.lap("norms", post.apply(x))

"""One decoder-only transformer, driven by a spec; attention and its KV memory belong to the caller."""

from __future__ import annotations

import torch
from torch import Tensor

from umbel.attention.base import AttentionBackend
from umbel.ir.spans import NO_SPANS, Spans
from umbel.ir.spec import ModelSpec
from umbel.kernels.place import Place
from umbel.kernels.rotation import HeadRotation
from umbel.kernels.rows import add_rms_norm, norm_and_rotate, rms_norm
from umbel.linear.base import LinearMethod, Weights
from umbel.linear.dense import DenseMethod
from umbel.models.batch import ForwardBatch
from umbel.models.layers import LayerWeights, inverse_frequencies, rotary_angles


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
        self.final_norm = weights["norm"].to(self.device)
        of_layer = (self._of_layer(weights, layer) for layer in range(spec.n_layers))
        self.layers = tuple(LayerWeights.of(named, method, spec.experts) for named in of_layer)
        self.embedding = method.convert_table(weights["embed"].to(self.device))
        self.head = self.embedding
        if not spec.tied_embeddings:
            self.head = method.convert_table(weights["head"].to(self.device))
        self.frequencies = inverse_frequencies(spec).to(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights and hidden states."""
        return self.final_norm.dtype

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids (int64 `[rows]`) to hidden states `[rows, hidden]`."""
        return self.embedding.rows(tokens)

    def batch(self, positions: Tensor, wanted: Tensor | None = None, spans: Spans = NO_SPANS) -> ForwardBatch:
        """What `forward` must know of rows at `positions` (int64 `[rows]`); see ForwardBatch for the others."""
        angles = spans.lap("rotary", rotary_angles(positions, self.frequencies, self.dtype))
        return ForwardBatch(angles, wanted, spans)

    def forward(
        self, hidden: Tensor, batch: ForwardBatch, attention: AttentionBackend, layers: range | None = None
    ) -> Tensor:
        """Run `layers` (all by default) on `hidden` `[rows, hidden]`; gives the new hidden of the rows that the batch
        wants. `attention` was prepared for the rows."""
        eps, lap, wanted = self.spec.rms_norm_eps, batch.spans.lap, batch.wanted
        layers = range(self.spec.n_layers) if layers is None else layers
        delta = None  # what the block before adds to `hidden`: added where the next block norms it
        for layer in layers:
            w = self.layers[layer]
            if delta is None:
                normed = lap("norms", rms_norm(hidden, w.attn_norm, eps))
            else:
                hidden, normed = lap("norms", add_rms_norm(hidden, delta, w.attn_norm, eps))
            q = self._queries(layer, normed, batch, attention.place(layer))
            attended = lap("attention", attention.attend(layer, q)).reshape(len(normed), -1)
            if wanted is not None and layer == layers[-1]:
                hidden, attended = hidden[wanted], attended[wanted]
            hidden, normed = lap("norms", add_rms_norm(hidden, lap("o", w.o.apply(attended)), w.mlp_norm, eps))
            delta = w.block.apply(normed, batch)
        return hidden if delta is None else lap("norms", hidden + delta)

    def logits(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """Final norm and head for the rows given (`[k, hidden]`): float32 `[k, vocab]`, maybe put into `out`."""
        return self.head.logits(rms_norm(hidden, self.final_norm, self.spec.rms_norm_eps), out)

    def _queries(self, layer: int, x: Tensor, batch: ForwardBatch, place: Place) -> Tensor:
        """Queries of one layer for normed rows (`[rows, n_heads, head_dim]`); keys and values are stored."""
        spec, w, lap = self.spec, self.layers[layer], batch.spans.lap
        heads = lap("qkv", w.qkv.apply(x)).view(x.shape[0], -1, spec.head_dim)
        norms = None if w.q_norm is None or w.k_norm is None else (w.q_norm, w.k_norm)
        rotation = HeadRotation(spec.n_heads, spec.n_kv_heads, batch.angles, norms, spec.rms_norm_eps)
        return lap("rotary", norm_and_rotate(heads, rotation, place))

    def _of_layer(self, weights: Weights, layer: int) -> Weights:
        """The tensors named `layers.<layer>.*`, by their names in the layer, on the device."""
        prefix = f"layers.{layer}."
        return {n.removeprefix(prefix): weights[n].to(self.device) for n in weights if n.startswith(prefix)}

"""All tokens pass the first layers; their hidden state there gives the keys and values of all later layers, which only
tokens pass whose logits are wanted. A node of a prompt never meets the later layers where no token is drawn from it.

SwiftKV (arXiv 2410.03960) trains the later projections for that. Where a checkpoint has them, they are used; else each
later layer applies its own norm and its own projections to that state, which loses more. Keys and values of a token
follow from the tokens up to it alone, so that rows share them as ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from umbel.attention.base import AttentionBackend
from umbel.errors import UsageError
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.models.batch import ForwardBatch
from umbel.models.layer_keys import LayerKeys, layer_keys, read_trained, trained_layer_keys
from umbel.runner.flow.base import FlowParts, Leg, tail_rows

Ints = NDArray[np.int64]


class SwiftKV:
    """A share `layers` of the layers, at least one, is passed by all tokens. Implements `LayerFlow`."""

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec):
        self.n_layers = spec.n_layers
        self.cut = max(1, round(settings["layers"] * spec.n_layers))
        self.keys: tuple[LayerKeys, ...] = ()

    def open(self, parts: FlowParts) -> None:
        """Implement `LayerFlow.open`: take the later layers' projections."""
        if self.cut == self.n_layers:
            return
        decoder, method = parts.decoder, parts.method
        trained = read_trained(parts.directory, decoder.spec)
        if trained is None:
            later = range(self.cut, self.n_layers)
            self.keys = tuple(layer_keys(decoder, parts.weights, method, layer) for layer in later)
            return
        if trained.first != self.cut:
            raise UsageError(
                f"technique='swiftkv': {self.cut} of {self.n_layers} layers are passed by all tokens, and the "
                f"checkpoint's projections were trained for {trained.first}: "
                f"swiftkv:layers={trained.first / self.n_layers:.4g}"
            )
        self.keys, products = trained_layer_keys(decoder, trained, method)
        own = enumerate(decoder.layers)
        decoder.layers = tuple(replace(w, qkv=products[i]) if i in products else w for i, w in own)

    def legs(self, step: Step, asked: Ints) -> Sequence[Leg]:
        """Implement `LayerFlow.legs`."""
        if self.cut == self.n_layers:
            return [Leg(range(self.n_layers))]
        return [Leg(range(self.cut)), Leg(range(self.cut, self.n_layers), tail_rows(step, asked), self._leave)]

    def _leave(self, hidden: Tensor, batch: ForwardBatch, attention: AttentionBackend) -> None:
        """Write the later layers' keys and values of all rows; layers that share a norm apply it once."""
        norm, normed = None, hidden
        for keys in self.keys:
            if keys.norm is not norm:
                norm, normed = keys.norm, batch.spans.lap("norms", keys.norm.apply(hidden))
            keys.write(normed, batch, attention)

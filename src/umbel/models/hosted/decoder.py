"""A module of transformers behind the interface of our decoder: packed rows in, attention and KV are the caller's."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from umbel.attention.base import AttentionBackend
from umbel.ir.spans import NO_SPANS, Spans
from umbel.ir.spec import ModelSpec
from umbel.linear.base import LinearMethod
from umbel.models.hosted.attention import Seat
from umbel.models.hosted.linears import OwnProducts, replace_linears
from umbel.models.hosted.probe import body_of


@dataclass(frozen=True, slots=True)
class HostedBatch:
    """Some rows: their `positions` (int64 `[rows]`), and which of them are `wanted` (int64 `[k]`, None: all)."""

    positions: Tensor
    wanted: Tensor | None
    spans: Spans


class HostedDecoder:
    """Runs packed rows through the layers of a module of transformers. Hidden states before the layers are token ids,
    as modules embed them in ways of their own."""

    adapters = None

    def __init__(self, spec: ModelSpec, module: PreTrainedModel, device: torch.device, method: LinearMethod):
        self.spec, self.device = spec, device
        self.dtype: torch.dtype = module.dtype
        replace_linears(module, method)
        self.module = module.to(device)
        name = body_of(module)
        self.body: nn.Module = getattr(module, name)
        self._seat, self._end = Seat(), _End()
        self._seat.give_to(self.body)
        setattr(module, name, self._end)  # what is left of `module` is its head

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Token ids (int64 `[rows]`) as they are."""
        return tokens

    def batch(self, positions: Tensor, wanted: Tensor | None = None, spans: Spans = NO_SPANS) -> HostedBatch:
        """What `forward` must know of rows at `positions`."""
        return HostedBatch(positions, wanted, spans)

    def forward(
        self, hidden: Tensor, batch: HostedBatch, attention: AttentionBackend, layers: range | None = None
    ) -> Tensor:
        """Run all layers on token ids; gives the last hidden states, normed, of the rows that the batch wants
        (`[k, hidden]`). `attention` was prepared for the rows."""
        if layers is not None:
            raise ValueError(f"layers={layers}: a module of transformers runs all of its layers")
        self._seat.backend = attention
        try:
            with self._products():
                out = self.body(
                    input_ids=hidden[None], position_ids=batch.positions[None], use_cache=False, return_dict=True
                )
        finally:
            self._seat.backend = None
        states = batch.spans.lap("layers", out.last_hidden_state[0])
        return states if batch.wanted is None else states[batch.wanted]

    def pool(self, hidden: Tensor) -> Tensor:
        """Vectors for rows of last hidden states (`[k, hidden]`): these, in float32."""
        return hidden.float()

    def _products(self) -> AbstractContextManager[object]:
        """What makes products outside linear modules ours, where there are any."""
        return OwnProducts() if self.spec.hosted.calls_linear else nullcontext()

    def logits(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """The module's head for rows of last hidden states (`[k, hidden]`): float32 `[k, vocab]`."""
        if not len(hidden):
            return hidden.new_empty(0, self.spec.vocab_size, dtype=torch.float32)
        self._end.states = hidden[None]
        logits = self.module(input_ids=None, use_cache=False, return_dict=True).logits[0].to(torch.float32)
        return logits if out is None else out.copy_(logits)


class _End(nn.Module):
    """Stands where the layers were, and gives the hidden states that it was given."""

    states: Tensor

    @property
    def decoder(self) -> _End:
        """Where heads look for the layers that have passed over their module (OPT)."""
        return self

    def forward(self, *_: Any, **__: Any) -> _Output:
        """The states, as layers give them."""
        return _Output((self.states,))


class _Output(tuple[Tensor]):
    """Last hidden states and nothing else: heads find None under every other name (caches, losses of routers)."""

    last_hidden_state = property(lambda self: self[0])

    def __getattr__(self, name: str) -> None:
        return None

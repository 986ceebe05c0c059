"""Runs steps on a torch device: inputs, model, attention, sampling."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from umbel.attention.base import AttentionBackend
from umbel.ir.spans import UNHEARD, Spans
from umbel.ir.step import Step, StepResult
from umbel.models.decoder import Decoder
from umbel.runner.sampling import sample


class TorchRunner:
    """One model on one device. The attention backend owns the KV store."""

    def __init__(self, decoder: Decoder, attention: AttentionBackend, device: torch.device, spans: Spans = UNHEARD):
        self.decoder = decoder
        self.attention = attention
        self.device = device
        self.spans = spans
        self._room = torch.empty(0, dtype=torch.float32, device=device)

    @torch.inference_mode()
    def run(self, step: Step) -> StepResult:
        """Compute one step; logits are made only for rows that are sampled from."""
        began, spans = time.perf_counter(), self.spans
        read = spans.lap("layout", self.attention.prepare(step))
        tokens = torch.from_numpy(step.tokens).to(self.device)
        positions = torch.from_numpy(step.positions).to(self.device)
        rows, row_of = np.unique(step.sampling.rows, return_inverse=True)
        wanted = torch.from_numpy(rows).to(self.device)
        hidden = spans.lap("embedding", self.decoder.embed(tokens))
        hidden = self.decoder.forward(hidden, positions, self.attention.forward, wanted=wanted, spans=spans)
        logits = spans.lap("head", self.decoder.logits(hidden, self._logits_room(len(rows))))
        result = spans.lap("sampling", sample(logits, row_of, step.sampling))
        return replace(result, seconds=time.perf_counter() - began, kv_tokens_read=read)

    def _logits_room(self, rows: int) -> torch.Tensor:
        """Memory that is kept between steps: to get tens of megabytes from the system anew costs as much as to sample
        from what is in them."""
        size = rows * self.decoder.spec.vocab_size
        if self._room.numel() < size:
            self._room = self._room.new_empty(size)
        return self._room[:size].view(rows, self.decoder.spec.vocab_size)

    def close(self) -> None:
        """Drop the model and the KV store."""
        del self.decoder, self.attention, self._room

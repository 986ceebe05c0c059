"""Runs steps on a torch device: inputs, model, attention, sampling."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from umbel.attention.base import AttentionBackend
from umbel.ir.spans import NO_SPANS, Spans
from umbel.ir.step import Sampling, Step
from umbel.kernels.transfer import upload
from umbel.kv.states import StateStore
from umbel.models.decoder import Decoder
from umbel.runner.base import Wait, done
from umbel.runner.layer_groups import LayerGroups
from umbel.runner.logits_memory import LogitsMemory
from umbel.runner.pooling import pool_draws, pool_some, rows_of, sum_states
from umbel.runner.recorded import RecordedSteps, draw_recorded
from umbel.runner.sampling import Draws, draw_samples
from umbel.runner.scoring import score_tokens


class TorchRunner:
    """One model on one device. The attention backend owns the KV store; `states` are those of layers that keep some,
    steps that were `recorded` run so. `groups`: what lets rows pass some layers only, for its steps."""

    ahead = 0

    def __init__(
        self,
        decoder: Decoder,
        attention: AttentionBackend,
        device: torch.device,
        spans: Spans = NO_SPANS,
        states: StateStore | None = None,
        recorded: RecordedSteps | None = None,
        groups: LayerGroups | None = None,
    ):
        self.decoder = decoder
        self.attention = attention
        self.states = states
        self.device = device
        self.spans = spans
        self.recorded = recorded
        self.groups = groups or LayerGroups(decoder)
        self._memory = LogitsMemory(decoder.spec.vocab_size, device)

    @torch.inference_mode()
    def start(self, step: Step) -> Wait:
        """Compute a step and draw from it; it is done when this returns."""
        began = time.perf_counter()
        draws, read = self._begin(step)
        drawn = self.spans.lap("sampling", draws.fetch()())
        return done(replace(drawn, seconds=time.perf_counter() - began, kv_tokens_read=read))

    def _begin(self, step: Step, before: torch.Tensor | None = None) -> tuple[Draws, int]:
        """Compute one step, whose tokens below 0 are among those drawn `before`; logits are made only for rows that are
        sampled from or score a token. Gives what was drawn and the KV tokens that each layer read."""
        self.groups.begin(step.group, self.attention)
        if self.recorded is not None and (known := draw_recorded(self.recorded, step, before)) is not None:
            return known
        spans = self.spans
        read = spans.lap("layout", self.attention.prepare(step))
        rows, row_of = np.unique(step.sampling.at, return_inverse=True)
        scored = rows[:0] if step.scores is None else np.unique(step.scores.at)
        if self.decoder.adapters is not None:
            self.decoder.adapters.prepare(step, np.concatenate([rows, scored]))
        summed = rows[:0] if step.sums is None else rows_of(step.sums)
        asked = np.concatenate([rows, scored, summed])
        turned = step.positions if step.kept is None else step.kept.positions
        tokens, positions, wanted = upload(self.device, step.tokens, turned, asked)
        if before is not None:
            tokens = torch.where(tokens < 0, before[(-1 - tokens).clamp_min(0)], tokens)
        hidden = spans.lap("embedding", self.decoder.embed(tokens, positions))
        batch = self.decoder.batch(positions, wanted, spans)
        if self.states is not None:
            batch = replace(batch, states=spans.lap("layout", self.states.places(step)))
        hidden, read = self.groups.forward(step, hidden, batch, positions, asked, read)
        draws = self._draw(hidden[: len(rows)], row_of, step.sampling)
        if step.scores is not None:
            draws = replace(draws, scores=score_tokens(self.decoder, hidden[len(rows) :][: len(scored)], step.scores))
            spans.lap("head", None)
        if step.sums is not None:
            draws = replace(draws, sums=sum_states(self.decoder, hidden[len(rows) + len(scored) :], step.sums))
        return draws, read

    def _draw(self, hidden: torch.Tensor, row_of: np.ndarray, sampling: Sampling) -> Draws:
        """What comes of the last hidden states of distinct rows (`[rows, hidden]`): tokens, or vectors."""
        if sampling.pooled is not None and len(sampling.pooled) == len(sampling):
            return self.spans.lap("head", pool_draws(self.decoder, hidden, row_of, sampling))
        logits = self.spans.lap("head", self.decoder.logits(hidden, self._memory.rows(len(hidden))))
        draws = self.spans.lap("sampling", draw_samples(logits, row_of, sampling))
        return draws if sampling.pooled is None else pool_some(draws, self.decoder, hidden, row_of, sampling)

    def close(self) -> None:
        """Drop the model and the KV store."""
        del self.decoder, self.attention, self.groups, self.states, self.recorded, self._memory

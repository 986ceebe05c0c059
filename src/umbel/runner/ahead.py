"""Runs steps on a device that computes while the processor decides the next one; drawn tokens stay on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch

from umbel.attention.base import AttentionBackend
from umbel.ir.step import Step
from umbel.kv.states import StateStore
from umbel.models.decoder import Decoder
from umbel.runner.base import Wait
from umbel.runner.sampling import Draws, draw_samples
from umbel.runner.torch_runner import TorchRunner


class RecordedSteps(Protocol):
    """Steps that were recorded, as CUDA graphs (runner/graphs.py)."""

    def logits(self, step: Step, before: torch.Tensor | None) -> tuple[torch.Tensor, int] | None:
        """Logits of every row and the KV tokens that each layer read, or None for a step that was not recorded."""
        ...


class AheadTorchRunner(TorchRunner):
    """A Runner whose `ahead` is 1; it launches a recorded step from `graphs` where there is one."""

    ahead = 1

    def __init__(
        self,
        decoder: Decoder,
        attention: AttentionBackend,
        device: torch.device,
        graphs: RecordedSteps | None = None,
        states: StateStore | None = None,
    ):
        super().__init__(decoder, attention, device, states=states)
        self.graphs = graphs
        self._drawn: torch.Tensor | None = None  # by the step before; None where it drew nothing

    @torch.inference_mode()
    def start(self, step: Step) -> Wait:
        """Launch a step, and the copy of what it draws to the processor."""
        draws, read = self._begin(step, self._drawn)
        wait = draws.fetch()
        self._drawn = draws.ids if len(draws.ids) else None
        return lambda: replace(wait(), kv_tokens_read=read)

    def _begin(self, step: Step, before: torch.Tensor | None = None) -> tuple[Draws, int]:
        """The draws of a step and the KV tokens that each layer read, from a recorded step where there is one."""
        plain = step.scores is None and step.sums is None and step.sampling.pooled is None
        known = self.graphs.logits(step, before) if plain and self.graphs is not None else None
        if known is None:
            return super()._begin(step, before)
        logits, read = known
        return draw_samples(logits, step.sampling.at, step.sampling), read

    def close(self) -> None:
        """Drop the model, the KV store and the recorded steps."""
        del self.graphs, self._drawn
        super().close()

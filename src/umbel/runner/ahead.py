"""Runs steps on a device that computes while the processor decides the next one; drawn tokens stay on it."""

from __future__ import annotations

from dataclasses import replace

import torch

from umbel.attention.base import AttentionBackend
from umbel.ir.step import Step
from umbel.kv.states import StateStore
from umbel.models.decoder import Decoder
from umbel.runner.base import Wait
from umbel.runner.layer_groups import LayerGroups
from umbel.runner.recorded import RecordedSteps
from umbel.runner.torch_runner import TorchRunner


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
        groups: LayerGroups | None = None,
    ):
        super().__init__(decoder, attention, device, states=states, recorded=graphs, groups=groups)
        self._drawn: torch.Tensor | None = None  # by the step before; None where it drew nothing

    @torch.inference_mode()
    def start(self, step: Step) -> Wait:
        """Launch a step, and the copy of what it draws to the processor."""
        draws, read = self._begin(step, self._drawn)
        wait = draws.fetch()
        self._drawn = draws.ids if len(draws.ids) else None
        return lambda: replace(wait(), kv_tokens_read=read)

    def close(self) -> None:
        """Drop what was drawn, too."""
        del self._drawn
        super().close()

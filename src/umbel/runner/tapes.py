"""Decoding steps of few rows on a processor as recorded calls of its kernels: Python costs such a step more than norms,
rotation and attention together, as weights that stream through the caches leave nothing there of what it needs.

A tape reads and writes the same memory whenever it runs, so what differs from step to step is copied to a fixed place.
What it computes, and with which bits, is what its kernels compute without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from umbel.attention.native import NativeAttention
from umbel.ir.step import Step
from umbel.kernels.native.tape import Tape, TapeMemory
from umbel.models.batch import ForwardBatch
from umbel.models.decoder import Decoder
from umbel.runner.logits_memory import LogitsMemory

MOST_ROWS = 16  # of a step that is recorded: what Python costs is lost in the arithmetic of larger ones
SEEN = 2  # times that a form runs as it is before it is recorded, which takes as long as several steps

Form = tuple[int, int]
"""Rows of a step, and threads."""


@dataclass(frozen=True, slots=True)
class TapedStep:
    """The tape of a form with what it reads of a step, `hidden` states, `batch` and slots for `writes`, and the `out`
    and `delta` that it leaves, whose sum is the hidden states behind the last layer."""

    tape: Tape
    hidden: Tensor
    batch: ForwardBatch
    writes: Tensor
    out: Tensor
    delta: Tensor

    def run(self, hidden: Tensor, batch: ForwardBatch, writes: Tensor) -> Tensor:
        """Hidden states behind the last layer."""
        self.hidden.copy_(hidden)
        self.writes.copy_(writes)
        for kept, new in zip(self.batch.angles, batch.angles, strict=True):
            kept[0].copy_(new[0])
            kept[1].copy_(new[1])
        self.tape.run()
        return self.out + self.delta


class TapedSteps:
    """Computes the logits of steps in which every row is sampled from, recorded where their form comes often."""

    def __init__(self, decoder: Decoder, attention: NativeAttention):
        self.decoder, self.attention = decoder, attention
        self._memory = TapeMemory()
        self._seen: dict[Form, int] = {}
        self._kept: dict[Form, TapedStep | None] = {}  # None: cannot be recorded
        self._logits = LogitsMemory(decoder.spec.vocab_size, decoder.device)

    def logits(self, step: Step, before: Tensor | None) -> tuple[Tensor, int] | None:
        """Logits of every row, in order, and the KV tokens that each layer read; None for a step that is to run as it
        is."""
        rows, form = step.n_rows, (step.n_rows, torch.get_num_threads())
        if rows > MOST_ROWS or self.decoder.adapters is not None or len(np.unique(step.sampling.at)) < rows:
            return None
        self._seen[form] = self._seen.get(form, 0) + 1
        if self._seen[form] <= SEEN or (form in self._kept and self._kept[form] is None):
            return None
        read = self.attention.prepare(step)
        tokens, positions = torch.from_numpy(step.tokens), torch.from_numpy(step.positions)
        hidden, batch = self.decoder.embed(tokens, positions), self.decoder.batch(positions)
        if form not in self._kept:
            self._kept[form] = self._record(hidden, batch)
        taped = self._kept[form]
        if taped is None:
            return None
        writes = torch.from_numpy(self.attention.forests[0].writes)
        return self.decoder.logits(taped.run(hidden, batch, writes), self._logits.rows(rows)), read

    def _record(self, hidden: Tensor, batch: ForwardBatch) -> TapedStep | None:
        """The tape of the step that attention is prepared for; None where it would not be all of it."""
        hidden, writes = hidden.clone(), self.attention.writes.clone()
        batch = replace(batch, angles=tuple((cos.clone(), sin.clone()) for cos, sin in batch.angles))
        self.attention.writes, tape = writes, Tape(self._memory)
        left = tape.record(lambda: self.decoder.run_layers(hidden, batch, self.attention))
        if left is None or left[1] is None:
            return None
        return TapedStep(tape, hidden, batch, writes, left[0], left[1])

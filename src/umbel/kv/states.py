"""The device tensors behind the states of a model's layers, a part of each page of the KV pool."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.ir.recurrence import Recurrence
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.change import Chain
from umbel.kernels.memory import empty
from umbel.kernels.transfer import upload
from umbel.kv.state_rows import StateChain, StateRows


@dataclass(frozen=True, slots=True)
class StatePlace:
    """Where the rows of a step find and leave what one layer keeps. `inputs` (`[places, channels]`): kept inputs of its
    convolution; `old`, `before`, `left` and `kept` as in StateRows, on the device. `matrices` (float32 `[pages, heads,
    key_dim, value_dim]`) and in which order rows change them, where it has any."""

    inputs: Tensor
    old: Tensor
    before: Tensor
    left: Tensor
    kept: Tensor
    matrices: Tensor | None
    chain: Chain | None

    def earlier(self, x: Tensor) -> list[Tensor]:
        """What rows (`[rows, channels]`) have one token back, two back and so on, as far as a convolution reaches; `x`
        itself is kept for later steps."""
        whole = torch.cat((x.new_zeros(1, x.shape[1]), self.inputs[self.old], x))
        self.inputs.index_copy_(0, self.kept, x[self.left])
        return [whole[each] for each in self.before]


class StateStore:
    """What the layers with a recurrence keep in `n_pages` pages: `inputs` (`[n_pages * taps, channels]` of each, in the
    model's type), and `matrices` (float32 `[n_pages, heads, key_dim, value_dim]`, None where there are none)."""

    def __init__(self, recurrences: tuple[Recurrence, ...], n_pages: int, dtype: torch.dtype, device: torch.device):
        (self.taps,) = {one.taps for one in recurrences}
        self.device = device
        self.inputs = [empty((n_pages * self.taps, one.channels), dtype, device) for one in recurrences]
        self.matrices = [
            empty((n_pages, one.heads, one.key_dim, one.value_dim), torch.float32, device) if one.heads else None
            for one in recurrences
        ]

    @classmethod
    def of(cls, spec: ModelSpec, n_pages: int, dtype: torch.dtype, device: torch.device) -> StateStore | None:
        """What a model needs, None where its layers keep nothing but keys and values."""
        return cls(spec.recurrences, n_pages, dtype, device) if spec.recurrences else None

    def places(self, step: Step) -> tuple[StatePlace, ...]:
        """The place of a step in each layer with a recurrence."""
        rows = StateRows.of(step, self.taps)
        arrays = upload(self.device, rows.old, rows.before, rows.left, rows.kept)
        chain = None if self.matrices[0] is None else self._chain(step)
        each = zip(self.inputs, self.matrices, strict=True)
        return tuple(StatePlace(inputs, *arrays, matrices, chain) for inputs, matrices in each)

    def _chain(self, step: Step) -> Chain:
        chain = StateChain.of(step)
        return Chain(*upload(self.device, chain.source, chain.target, chain.order), tuple(chain.ends.tolist()))

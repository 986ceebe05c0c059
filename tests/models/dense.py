"""Dense causal attention, written for the tests as plainly as possible: one sequence, everything kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.place import Place
from umbel.kv.states import StateStore
from umbel.kv.store import KVStore
from umbel.models.decoder import Decoder


class DenseAttention:
    """Attention of one sequence; remembers keys and values, so calls may be chunks."""

    def __init__(self, spec: ModelSpec, dtype: torch.dtype = torch.float32):
        self.spec = spec
        self.store = KVStore(spec, 1, spec.max_positions, dtype, torch.device("cpu"))
        self.slots = torch.arange(0)
        self.states = StateStore.of(spec, 1, dtype, torch.device("cpu"))

    def begin(self, slots: Tensor) -> None:
        """The positions, and at once the slots, of the rows that come next."""
        self.slots = slots

    def place(self, layer: int) -> Place:
        """Implement `AttentionBackend.place`."""
        return self.store.place(layer, self.slots)

    def attend(self, layer: int, q: Tensor, select: None = None, sinks: Tensor | None = None) -> Tensor:
        """Implement `AttentionBackend.attend`."""
        keys, values = (t.transpose(0, 1) for t in self.store.read(layer, slice(0, int(self.slots[-1]) + 1)))
        query_at = self.slots[:, None]
        key_at = torch.arange(len(keys))[None, :]
        seen = key_at <= query_at
        shape = self.spec.kv_shapes[layer]
        if shape.window is not None:
            seen &= key_at > query_at - shape.window
        group = shape.group_size
        scores = torch.einsum("qhd,khd->hqk", q, keys.repeat_interleave(group, 1)) * shape.scale
        if shape.cap is not None:
            scores = shape.cap * torch.tanh(scores / shape.cap)
        scores = scores.masked_fill(~seen, float("-inf")).to(torch.float32)
        if sinks is not None:
            scores = torch.cat((scores, sinks[:, None, None].expand(-1, len(q), 1)), -1)
        weights = scores.softmax(-1)[..., : len(keys)].to(q.dtype)
        return torch.einsum("hqk,khd->qhd", weights, values.repeat_interleave(group, 1))


def forward(
    decoder: Decoder, ids: Tensor, positions: Tensor, attention: DenseAttention, wanted: Tensor | None = None
) -> Tensor:
    """Hidden states of the next tokens of a sequence: those of all, or of the rows that are wanted."""
    attention.begin(positions)
    batch = decoder.batch(positions, wanted)
    if attention.states is not None:
        batch = replace(batch, states=attention.states.places(step_of(ids, positions, decoder.spec.max_positions)))
    return decoder.forward(decoder.embed(ids, positions), batch, attention)


def step_of(ids: Tensor, positions: Tensor, page_size: int) -> Step:
    """The next rows of a sequence that lies in one page."""
    zero, rows = np.zeros(1, np.int64), np.array([len(ids)])
    return Step(
        tokens=ids.numpy(), positions=positions.numpy(), fresh=np.ones(len(ids), bool), parent=zero - 1, start=zero,
        end=zero + int(positions[-1]) + 1, row_begin=zero, row_end=rows, below_end=rows, pages=zero, page_begin=zero,
        page_size=page_size, sampling=None,
    )  # fmt: skip


@torch.inference_mode()
def dense_logits(decoder: Decoder, tokens: list[int]) -> Tensor:
    """Logits of every position of one sequence: [tokens, vocab]."""
    ids = torch.tensor(tokens)
    return decoder.logits(forward(decoder, ids, torch.arange(len(ids)), DenseAttention(decoder.spec, decoder.dtype)))


@torch.inference_mode()
def greedy(decoder: Decoder, prompt: list[int], n_tokens: int) -> list[int]:
    """`n_tokens` greedy tokens, one step at a time."""
    attention, answer, feed, at = DenseAttention(decoder.spec, decoder.dtype), [], list(prompt), 0
    for _ in range(n_tokens):
        hidden = forward(decoder, torch.tensor(feed), torch.arange(at, at + len(feed)), attention)
        answer.append(int(decoder.logits(hidden[-1:]).argmax()))
        at, feed = at + len(feed), answer[-1:]
    return answer

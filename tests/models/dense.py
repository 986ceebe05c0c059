"""Dense causal attention, written for the tests as plainly as possible: one sequence, everything kept."""

from __future__ import annotations

import torch
from torch import Tensor

from umbel.ir.spec import ModelSpec
from umbel.models.decoder import Decoder


class DenseAttention:
    """An `attend` for packed sequences of the given lengths; remembers keys and values, so calls may be chunks."""

    def __init__(self, spec: ModelSpec):
        self.spec = spec
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys = torch.cat((self.keys[layer], k)) if layer in self.keys else k
        values = torch.cat((self.values[layer], v)) if layer in self.values else v
        self.keys[layer], self.values[layer] = keys, values
        query_at = torch.arange(len(keys) - len(q), len(keys))[:, None]
        key_at = torch.arange(len(keys))[None, :]
        seen = key_at <= query_at
        if self.spec.sliding_window is not None:
            seen &= key_at > query_at - self.spec.sliding_window
        group = self.spec.group_size
        scores = torch.einsum("qhd,khd->hqk", q, keys.repeat_interleave(group, 1)) * self.spec.head_dim**-0.5
        scores = scores.masked_fill(~seen, float("-inf")).softmax(-1, dtype=torch.float32).to(q.dtype)
        return torch.einsum("hqk,khd->qhd", scores, values.repeat_interleave(group, 1))


@torch.inference_mode()
def dense_logits(decoder: Decoder, tokens: list[int]) -> Tensor:
    """Logits of every position of one sequence: [tokens, vocab]."""
    ids = torch.tensor(tokens)
    hidden = decoder.forward(decoder.embed(ids), torch.arange(len(ids)), DenseAttention(decoder.spec))
    return decoder.logits(hidden)


@torch.inference_mode()
def greedy(decoder: Decoder, prompt: list[int], n_tokens: int) -> list[int]:
    """`n_tokens` greedy tokens, one step at a time."""
    attend, answer, feed, at = DenseAttention(decoder.spec), [], list(prompt), 0
    for _ in range(n_tokens):
        ids, positions = torch.tensor(feed), torch.arange(at, at + len(feed))
        hidden = decoder.forward(decoder.embed(ids), positions, attend)
        answer.append(int(decoder.logits(hidden[-1:]).argmax()))
        at, feed = at + len(feed), answer[-1:]
    return answer

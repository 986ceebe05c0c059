"""What a draft model looks at of a prompt: it reads it whole, in KV memory of its own, and goes on for a few tokens."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from umbel.attention.base import AttentionBackend
from umbel.attention.pick import pick_attention
from umbel.attention.select.lines import weights_of
from umbel.engine.build import Model, build_store
from umbel.ir.kv_shape import KVShape
from umbel.ir.step import Sampling, Step
from umbel.kernels.place import Place
from umbel.kernels.view import View
from umbel.kv.store import KVStore
from umbel.runner.base import run_step
from umbel.runner.torch_runner import TorchRunner

AHEAD = 4  # tokens that it goes on for: of the published 1, 4 and 8
POOL = 13  # neighbours whose mean a token counts with, as published
CHUNK = 2048  # tokens of a prompt that it reads in a step


class LookingAttention:
    """A backend that keeps the query of the last row of a step in each layer, over the first slots of a store."""

    def __init__(self, inner: AttentionBackend, store: KVStore, shapes: tuple[KVShape, ...]):
        self.inner, self.store, self.shapes, self.name = inner, store, shapes, inner.name
        self._last: dict[int, Tensor] = {}

    def prepare(self, step: Step) -> int:
        """Lay the step out."""
        return self.inner.prepare(step)

    def place(self, layer: int) -> Place:
        """Where keys and values go."""
        return self.inner.place(layer)

    def attend(self, layer: int, q: Tensor, select: View | None = None, sinks: Tensor | None = None) -> Tensor:
        """Attention, with the last query kept."""
        self._last[layer] = q[-1].clone()
        return self.inner.attend(layer, q, select, sinks)

    def looked(self, tokens: int) -> Tensor:
        """The weight that the last row gives each of the first tokens, smoothed over neighbours, of the layer and head
        that give most: float32 `[tokens]`."""
        found = torch.zeros(tokens)
        for layer, shape in enumerate(self.shapes):
            keys, _ = self.store.read(layer, slice(0, tokens))
            grouped = self._last[layer].view(shape.n_kv_heads, shape.group_size, 1, -1)
            for mine, own in zip(grouped, keys, strict=True):
                weights = weights_of(mine, own.to(mine.dtype), shape)[:, 0]
                smooth = F.avg_pool1d(weights[None], POOL, 1, POOL // 2, count_include_pad=False)[0]
                found = torch.maximum(found, smooth.amax(0).cpu())
        return found


class DraftLook:
    """A loaded draft model that reads one prompt at a time."""

    def __init__(self, model: Model):
        self.model = model
        self._store: KVStore | None = None
        self.read_tokens = 0

    def look(self, prompt: NDArray[np.int32]) -> NDArray[np.float64]:
        """How much the last token of a prompt, and those that the draft says next, look at each of its tokens
        (`[tokens]`), on average."""
        size, spec = self.model.config.page_size, self.model.spec
        self._store = store = build_store(self.model, -(-(len(prompt) + AHEAD) // size), size, self._store)
        probe = LookingAttention(pick_attention(spec, store, self.model.device), store, spec.kv_shapes)
        runner = TorchRunner(self.model.decoder, probe, self.model.device)
        tokens, looks = prompt.astype(np.int64), list[Tensor]()
        for first in range(0, len(prompt), CHUNK):
            drawn = run_step(runner, _step(tokens[first : first + CHUNK], first, size)).token_ids
        while True:
            looks.append(probe.looked(len(prompt)))
            if len(looks) == AHEAD or drawn.item(0) in spec.eos_token_ids:
                break
            drawn = run_step(runner, _step(drawn, len(prompt) + len(looks) - 1, size)).token_ids
        self.read_tokens += len(prompt) + len(looks) - 1
        return np.asarray(torch.stack(looks).mean(0), np.float64)


def _step(tokens: NDArray[np.int64], first: int, size: int) -> Step:
    """A step of one sequence that feeds tokens from position `first` on, and draws the most likely next one."""
    count, one = len(tokens), np.zeros(1, np.int64)
    end = one + first + count
    draw = Sampling(
        at=one + count - 1,
        temperature=np.zeros(1),
        top_k=one,
        top_p=np.ones(1),
        min_p=np.zeros(1),
        streams=one,
        keys=one,
        samples=one,
        positions=end,
        logprobs=one - 1,
    )
    rows = one + count
    return Step(
        tokens=tokens,
        positions=np.arange(first, first + count),
        fresh=np.ones(count, bool),
        parent=one - 1,
        start=one,
        end=end,
        row_begin=one,
        row_end=rows,
        below_end=rows,
        pages=np.arange(-(-end.item(0) // size)),
        page_begin=one,
        page_size=size,
        sampling=draw,
    )

"""How much of dense attention's softmax lies on the keys that a selector leaves: picks are made and not obeyed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from umbel.attention.select.selected import SelectedAttention
from umbel.ir.params import SamplingParams
from umbel.ir.step import Step
from umbel.kernels.place import Place
from umbel.kernels.view import GRID, View
from umbel.kv.slots import path_slots, row_nodes
from umbel.lab.answers import AnsweringModel
from umbel.lab.tasks import LabTask


class MassMeter:
    """Dense attention that looks what selectors would have left of it, row by row. Implements `AttentionBackend`.

    `total` is the sum over rows, layers and heads of the share of the softmax on keys that would be read, `count` how
    many there are, `least` the smallest mean over the heads of a row in a layer; of rows that would not read all.
    """

    def __init__(self, selected: SelectedAttention):
        self.selected = selected
        self.total, self.count, self.least = 0.0, 0, 1.0

    @property
    def name(self) -> str:
        """The name of the backend."""
        return self.selected.name

    def prepare(self, step: Step) -> int:
        """Implement `AttentionBackend.prepare`."""
        self._step, self._nodes = step, row_nodes(step)
        return self.selected.prepare(step)

    def place(self, layer: int) -> Place:
        """Implement `AttentionBackend.place`."""
        return self.selected.place(layer)

    def attend(self, layer: int, q: Tensor, select: View | None = None, sinks: Tensor | None = None) -> Tensor:
        """Implement `AttentionBackend.attend`, by everything that there is."""
        view = self.selected.picked(layer, q, select)
        if view is not None:
            cells = self._step.positions // GRID
            before = torch.arange(view.reads.shape[2]) < torch.from_numpy(cells)[:, None]
            leaves = ~view.reads[view.tile_of.long()] & before[:, None]
            for row in torch.nonzero(leaves.flatten(1).any(1)).flatten().tolist():
                self._measure(layer, q, view, row)
        return self.selected.inner.attend(layer, q, select, sinks)

    def _measure(self, layer: int, q: Tensor, view: View, row: int) -> None:
        shape, position = self.selected.shapes[layer], int(self._step.positions[row])
        slots = path_slots(self._step, self._nodes[row : row + 1], np.arange(position + 1)[None])[0]
        keys = self.selected.store.read(layer, torch.from_numpy(slots).to(q.device))[0].float()
        query = q[row].float().unflatten(0, (shape.n_kv_heads, shape.group_size))
        kept = kept_share(query, keys, view.reads[int(view.tile_of[row])], shape.scale, shape.cap, shape.window)
        self.total, self.count = self.total + float(kept.sum()), self.count + kept.numel()
        self.least = min(self.least, float(kept.mean()))


def kept_share(
    query: Tensor, keys: Tensor, reads: Tensor, scale: float, cap: float | None = None, window: int | None = None
) -> Tensor:
    """The share of a row's softmax on keys that it reads, for each head `[n_kv_heads, group]`: `query` `[n_kv_heads,
    group, key_dim]`, `keys` of its path up to itself `[n_kv_heads, keys, key_dim]`, `reads` which cells it reads
    `[n_kv_heads, cells]`; its own cell it always does."""
    scores = torch.bmm(query, keys.transpose(1, 2)).mul_(scale)
    if cap is not None:
        scores = scores.div_(cap).tanh_().mul_(cap)
    n = keys.shape[1]
    seen = torch.arange(n, device=keys.device)
    if window is not None:
        scores[..., seen < n - window] = -torch.inf
    read = reads.to(keys.device).repeat_interleave(GRID, 1)[:, :n] | (seen >= (n - 1) // GRID * GRID)
    return (scores.softmax(-1) * read[:, None]).sum(-1)


def measure_mass(model: AnsweringModel, task: LabTask) -> MassMeter:
    """Answer the rows of a task as dense attention does, and say what the model's selectors would have left. Raises
    TypeError where it has none."""
    engine = model.llm.engine
    params = [SamplingParams(temperature=0.0, max_tokens=most) for most in task.most]
    workload = model.llm.intake.take(list(task.prompts), params, None).workload
    plan = engine.plan_for(workload)
    with engine.running(plan) as loop:
        meter = MassMeter(loop.runner.attention)
        loop.runner.attention = meter
        loop.add(workload, plan)
        while loop.busy:
            for _ in loop.outputs():
                pass
    return meter

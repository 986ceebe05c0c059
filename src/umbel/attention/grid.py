"""Attention over the forest in plain torch, on any device: cells of the position grid, read together where rows share.

The query heads of a KV group are folded into rows: row r and head g of the group become query r * group + g. Partial
results are merged in float32 by the running maximum and sum of the softmax (Milakov & Gimelshein 2018; the sharing is
Hydragen's and BatchLLM's). See `layout.py` for why the bits do not depend on what else is in the step.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from umbel.attention.kinds import LayerKinds
from umbel.attention.layout import GRID, Layout, Narrow, lay_out
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.place import Place
from umbel.kernels.sinks import check_sinks
from umbel.kernels.view import View, check_whole
from umbel.kv.slots import write_slots
from umbel.kv.store import KVStore

# A matrix product over as few as a head's numbers gives a row the same bits for any number of rows from 16 on (measured
# for MKL's sgemm; below that it changes algorithm, on AVX2 below 8), so fewer queries than this are padded.
MIN_QUERIES = 16
# Scores held at a time: small enough to stay in cache, large enough to keep the dispatch of torch negligible.
_BLOCK_SCORES = 1 << 20
_FLOOR = -1e30  # stands for "saw nothing yet": finite, so that merging two empty results gives no NaN


class GridAttention:
    """The torch backend; `prepare` builds index tensors once, `attend` runs them for each layer."""

    name = "torch"

    def __init__(self, spec: ModelSpec, store: KVStore, device: torch.device):
        self.shapes = spec.kv_shapes
        self.store = store
        self.device = device
        self.kinds = LayerKinds.of(self.shapes, lambda shape: (shape.group_size, shape.window))

    def prepare(self, step: Step) -> int:
        """Cut the step into wide and narrow items, as index tensors."""
        layouts = [lay_out(step, -(-MIN_QUERIES // group), window) for group, window in self.kinds.kinds]
        self.writes = _tensor(write_slots(step, self.store.scratch), self.device)
        groups = [group for group, _ in self.kinds.kinds]
        self.items = [
            _Items(layout, group, step.n_rows, self.device) for layout, group in zip(layouts, groups, strict=True)
        ]
        return self.kinds.mean_read([layout.kv_tokens_read for layout in layouts])

    def place(self, layer: int) -> Place:
        """The rows' slots."""
        return self.store.place(layer, self.writes)

    def attend(self, layer: int, q: Tensor, select: View | None = None, sinks: Tensor | None = None) -> Tensor:
        """Wide items, then narrow ones by rank; reads whole paths only."""
        check_whole(self.name, select)
        shape, items = self.shapes[layer], self.items[self.kinds.of_layer[layer]]
        check_sinks(shape, sinks)
        rows, heads, dim = q.shape
        kv_heads, group = shape.n_kv_heads, shape.group_size
        scaled = q.float() * shape.scale
        # [n_kv_heads, rows * group + 1, dim]; the last query is the padding of narrow items.
        queries = scaled.new_zeros(kv_heads, rows * group + 1, dim)
        queries[:, :-1] = scaled.view(rows, kv_heads, group, dim).transpose(0, 1).reshape(kv_heads, -1, dim)
        merged = _Merged(queries, shape.value_dim, None if sinks is None else sinks.view(kv_heads, group))
        for begin, end, slots in items.wide:
            self._read_wide(merged, queries, layer, begin, end, slots)
        partials = [self._read_narrow(queries, layer, item) for item in items.narrow]
        for rank in range(max((n.n_ranks for n in items.narrow), default=0)):
            for item, partial in zip(items.narrow, partials, strict=True):
                merged.add_narrow(item, partial, rank)
        out = merged.result()[:, :-1].view(kv_heads, rows, group, shape.value_dim).transpose(0, 1)
        return out.reshape(rows, heads, shape.value_dim).to(q.dtype)

    def _read_wide(
        self, merged: _Merged, queries: Tensor, layer: int, begin: int, end: int, slots: slice | Tensor
    ) -> None:
        """All queries `[begin, end)` against the cells of one item, in blocks that fit the cache."""
        # [kv_heads, cells * GRID, key_dim or value_dim], in place for float32 slices
        keys, values = (t.float() for t in self.store.read(layer, slots))
        height = max(MIN_QUERIES, _BLOCK_SCORES // (GRID * len(keys)))
        n_blocks = -(-(end - begin) // height)  # of equal height, so that none falls below MIN_QUERIES
        edges = [begin + (end - begin) * i // n_blocks for i in range(n_blocks + 1)]
        for low, high in pairwise(edges):
            width = max(1, height // (high - low)) * GRID
            for k in range(0, keys.shape[1], width):
                near = slice(k, k + width)
                partial = _attend_cells(queries[:, low:high], keys[:, near], values[:, near], self.shapes[layer].cap)
                merged.add_wide(low, high, partial)

    def _read_narrow(self, queries: Tensor, layer: int, item: _NarrowIndex) -> _Partial:
        # [kv_heads, items, k, key_dim or value_dim]
        keys, values = (t.float() for t in self.store.read(layer, item.slots))
        return _attend_items(queries[:, item.queries], keys, values, item.mask, self.shapes[layer].cap)


def _tensor(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)


class _Items:
    """A step laid out for layers of one kind, as tensors: `wide` items (range of queries, slots) and `narrow` ones."""

    def __init__(self, layout: Layout, group: int, n_rows: int, device: torch.device):
        self.wide = [(w.begin * group, w.end * group, _at(w.slots, device)) for w in layout.wide]
        self.narrow = [_NarrowIndex(n, group, n_rows, device) for n in layout.narrow]


def _at(slots: np.ndarray, device: torch.device) -> slice | Tensor:
    """Slots to read; those that lie side by side become a slice: read in place."""
    if (np.diff(slots) == 1).all():
        return slice(int(slots[0]), int(slots[-1]) + 1)
    return _tensor(slots, device)


class _NarrowIndex:
    """A narrow bucket as tensors: `queries` (`[items, m]`, padding points at the spare query), `slots` (`[items, k]`),
    `mask` (`[items, m, k]`, added to the scores), and for each rank which results go to which queries."""

    def __init__(self, item: Narrow, group: int, n_rows: int, device: torch.device):
        m = max(MIN_QUERIES, item.rows.shape[1] * group)
        spare = n_rows * group
        folded = np.where(item.rows < 0, spare, item.rows * group)[:, :, None] + np.arange(group)
        folded = np.where(item.rows[:, :, None] < 0, spare, folded).reshape(len(item.rows), -1)
        queries = np.full((len(item.rows), m), spare)
        queries[:, : folded.shape[1]] = folded
        keys = np.arange(item.slots.shape[1])
        seen = (keys < item.visible[:, :, None]) & (keys >= item.hidden[:, :, None]) | (item.rows[:, :, None] < 0)
        mask = np.zeros((len(item.rows), m, len(keys)), np.float32)
        mask[:, : folded.shape[1]] = np.where(np.repeat(seen, group, axis=1), 0.0, -np.inf)
        self.queries = torch.from_numpy(queries).to(device)
        self.slots = torch.from_numpy(item.slots).to(device)
        self.mask = torch.from_numpy(mask).to(device)
        self.n_ranks = int(item.rank.max()) + 1
        self.places = [_places(queries, item.rank == rank, spare, device) for rank in range(self.n_ranks)]


def _places(queries: np.ndarray, which: np.ndarray, spare: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Flat indices of the results of some items, and the queries they belong to (padding left out)."""
    at = np.flatnonzero((queries != spare) & which[:, None])
    return torch.from_numpy(at).to(device), torch.from_numpy(queries.ravel()[at]).to(device)


# Softmax over some keys: maximum and sum of weights (`[kv_heads, cells or items, m]`), weighted values (`[..., dim]`).
_Partial = tuple[Tensor, Tensor, Tensor]


def _bent(scores: Tensor, cap: float | None) -> Tensor:
    """`cap * tanh(scores / cap)`, in place, or the scores as they are."""
    return scores if cap is None else scores.div_(cap).tanh_().mul_(cap)


def _attend_cells(queries: Tensor, keys: Tensor, values: Tensor, cap: float | None) -> _Partial:
    """Every query (`[kv_heads, m, dim]`) against every cell of `keys`, `values` (`[kv_heads, cells * GRID, dim]`)."""
    scores = _bent(torch.bmm(queries, keys.transpose(1, 2)), cap).unflatten(2, (-1, GRID))  # [kv_heads, m, cells, GRID]
    top = scores.amax(-1).clamp_min(_FLOOR)
    weights = scores.sub_(top.unsqueeze(-1)).exp_()
    cells = values.unflatten(1, (-1, GRID))
    mixed = [torch.bmm(weights[:, :, c], cells[:, c]) for c in range(cells.shape[1])]
    return top.transpose(1, 2), weights.sum(-1).transpose(1, 2), torch.stack(mixed, 1)


def _attend_items(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, cap: float | None) -> _Partial:
    """Each item's queries against its own keys: `queries` `[kv_heads, items, m, dim]`, `keys` `[kv_heads, items, k,
    dim]`, `values` `[..., value_dim]`, `mask` `[items, m, k]`."""
    heads, items, k, dim = keys.shape
    m = queries.shape[2]
    scores = _bent(torch.bmm(queries.reshape(-1, m, dim), keys.reshape(-1, k, dim).transpose(1, 2)), cap)
    scores = scores.view(heads, items, m, k).add_(mask)
    top = scores.amax(-1).clamp_min(_FLOOR)
    weights = scores.sub_(top.unsqueeze(-1)).exp_()
    # Always summed over GRID terms: a shorter sum would associate differently and change the last bit.
    total = torch.nn.functional.pad(weights, (0, GRID - k)).sum(-1)
    mixed = torch.bmm(weights.view(-1, m, k), values.reshape(-1, k, values.shape[-1]))
    return top, total, mixed.view(heads, items, m, -1)


class _Merged:
    """Running softmax of all queries: `top`, `total` (`[kv_heads, queries]`), `mixed` (`[..., value_dim]`). It begins
    with the `sinks` of the heads (`[kv_heads, group]`), where there are some."""

    def __init__(self, queries: Tensor, value_dim: int, sinks: Tensor | None):
        self.top = torch.full_like(queries[..., 0], _FLOOR)
        self.total = torch.zeros_like(self.top)
        if sinks is not None:
            self.top[:, :-1] = sinks.repeat(1, (queries.shape[1] - 1) // sinks.shape[1])
            self.total[:, :-1] = 1
        self.mixed = queries.new_zeros(*queries.shape[:-1], value_dim)

    def add_wide(self, low: int, high: int, partial: _Partial) -> None:
        """Merge cells read by queries `[low, high)`, one after the other in order of position."""
        top, total, mixed = self.top[:, low:high], self.total[:, low:high], self.mixed[:, low:high]
        for cell in range(partial[0].shape[1]):
            new = _merge((top, total, mixed), tuple(t[:, cell] for t in partial))
            for old, value in zip((top, total, mixed), new, strict=True):
                old.copy_(value)

    def add_narrow(self, item: _NarrowIndex, partial: _Partial, rank: int) -> None:
        """Merge the results of the items of one rank; no query occurs twice among them."""
        if rank >= item.n_ranks:
            return
        at, query = item.places[rank]
        old = (self.top[:, query], self.total[:, query], self.mixed[:, query])
        new = _merge(old, tuple(t.flatten(1, 2)[:, at] for t in partial))
        self.top[:, query], self.total[:, query], self.mixed[:, query] = new

    def result(self) -> Tensor:
        """The attention output of every query; the spare one, which saw nothing, is garbage."""
        return self.mixed / self.total.unsqueeze(-1)


def _merge(a: _Partial, b: _Partial) -> _Partial:
    """Two partial softmaxes as one."""
    top = torch.maximum(a[0], b[0])
    scale_a, scale_b = torch.exp(a[0] - top), torch.exp(b[0] - top)
    total = a[1] * scale_a + b[1] * scale_b
    return top, total, a[2] * scale_a.unsqueeze(-1) + b[2] * scale_b.unsqueeze(-1)

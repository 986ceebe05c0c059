"""Attention over the forest on a GPU: one launch over a list of work, then one that merges partial results.

A program is one item of `attention/work.py` and one KV head. The query heads of the KV head are folded into the rows of
its tile, so that keys and values are read once for all of them; keys and values are read where they lie in their pages.
A key's numbers are read in two parts, the second of which may be none: those up to a power of two, and the rest.
The softmax is that of FlashAttention (arXiv 2205.14135), partial results are merged as in FlashDecoding and Hydragen
(arXiv 2402.05099). Partial results are float32; for one list of work the order of all sums is fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from umbel.ir.kv_shape import KVShape
from umbel.kernels.sinks import check_sinks
from umbel.kernels.view import GRID, View

NOTHING = tl.constexpr(-1.0e30)  # the largest score of a query that saw no key: finite, so that nothing becomes NaN
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _keys_of(pages, run, n, from_key, PAGE: tl.constexpr, KEYS: tl.constexpr):
    """Slots of the keys of a run from `from_key` on, and which of them are there."""
    key = from_key + tl.arange(0, KEYS)
    there = key < n
    place = tl.load(run + 1) + key
    page = tl.load(pages + tl.load(run) + place // PAGE, mask=there, other=0)
    return page.to(tl.int64) * PAGE + place % PAGE, there


@triton.jit
def _products(mine, rows, slot, there, dims, DIM: tl.constexpr, FLOAT32: tl.constexpr):
    """Products of a tile of queries with some keys, over some of their numbers."""
    at = rows + slot[None, :] * DIM + dims[:, None]
    keys = tl.load(at, mask=there[None, :] & (dims < DIM)[:, None], other=0.0)
    return tl.dot(mine, keys.to(mine.dtype), input_precision="ieee" if FLOAT32 else "tf32")


@triton.jit
def _scores(
    mine, mine_rest, rows, scales, slot, there, scale,
    DIM: tl.constexpr, WIDTH: tl.constexpr, REST: tl.constexpr, CAP: tl.constexpr, SCALED: tl.constexpr,
    FLOAT32: tl.constexpr,
):  # fmt: skip
    """Scores of a tile of queries with some keys, in powers of two."""
    scores = _products(mine, rows, slot, there, tl.arange(0, WIDTH), DIM, FLOAT32)
    if REST > 0:
        scores += _products(mine_rest, rows, slot, there, WIDTH + tl.arange(0, REST), DIM, FLOAT32)
    scores *= scale
    if SCALED:
        scores *= tl.load(scales + slot, mask=there, other=0.0)[None, :]
    if CAP > 0:  # cap * tanh(scores / cap)
        scores = CAP - 2 * CAP / (tl.exp2(scores * (2 * LOG2E / CAP)) + 1)
    return scores * LOG2E


@triton.jit
def _cells_of(reads, tile_of, row, here, kv_head, kv_heads, n_cells, GRID: tl.constexpr):
    """Where the cells of each row's tile begin."""
    if GRID > 0:
        tile = tl.load(tile_of + row, mask=here, other=0).to(tl.int64)
        return reads + (tile * kv_heads + kv_head) * n_cells
    else:
        return reads + row * 0


@triton.jit
def _chosen(reads, at, position, GRID: tl.constexpr):
    """Which of the keys at some positions each query reads; `reads` is where the cells of its tile begin."""
    cell = at // GRID
    return (tl.load(reads[:, None] + cell[None, :]) != 0) | (cell[None, :] == (position // GRID)[:, None])


@triton.jit
def _read_run(
    top, total, mixed, mine, mine_rest, position, reads, run, pages, keys, values, key_scales, value_scales, scale,
    DIM: tl.constexpr, WIDTH: tl.constexpr, REST: tl.constexpr, V_DIM: tl.constexpr, V_WIDTH: tl.constexpr,
    V_STRIDE: tl.constexpr, PAGE: tl.constexpr, KEYS: tl.constexpr, WINDOW: tl.constexpr, CAP: tl.constexpr,
    SCALED: tl.constexpr, FLOAT32: tl.constexpr, GRID: tl.constexpr,
):  # fmt: skip
    """Go on with a tile's softmax over the keys of one run."""
    first, n = tl.load(run + 2), tl.load(run + 3)
    for from_key in range(0, n, KEYS):
        slot, there = _keys_of(pages, run, n, from_key, PAGE, KEYS)
        at = first + from_key + tl.arange(0, KEYS)
        seen = there[None, :] & (at[None, :] <= position[:, None])
        if GRID > 0:  # keys that no query of the tile reads are not loaded
            seen = seen & _chosen(reads, tl.where(there, at, first), position, GRID)
            there = there & (tl.max(seen.to(tl.int32), 0) > 0)
        scores = _scores(mine, mine_rest, keys, key_scales, slot, there, scale, DIM, WIDTH, REST, CAP, SCALED, FLOAT32)
        if WINDOW > 0:
            seen = seen & (at[None, :] > position[:, None] - WINDOW)
        scores = tl.where(seen, scores, NOTHING)
        new_top = tl.maximum(top, tl.max(scores, 1))
        weights = tl.where(seen, tl.exp2(scores - new_top[:, None]), 0.0)
        fade = tl.exp2(top - new_top)
        total = total * fade + tl.sum(weights, 1)
        if SCALED:
            weights *= tl.load(value_scales + slot, mask=there, other=0.0)[None, :]
        dims = tl.arange(0, V_WIDTH)
        rows = values + slot[:, None] * V_STRIDE + dims[None, :]
        found = tl.load(rows, mask=there[:, None] & (dims < V_DIM)[None, :], other=0.0).to(mine.dtype)
        mixed = mixed * fade[:, None] + tl.dot(
            weights.to(mine.dtype), found, input_precision="ieee" if FLOAT32 else "tf32"
        )
        top = new_top
    return top, total, mixed


@triton.jit
def _attend_tile(
    q, out, keys, values, key_scales, value_scales, pages, positions, item, runs, partial, tops, sinks,
    reads, tile_of, n_cells, q_stride, out_stride, head, queries, scale,
    LANES: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, REST: tl.constexpr, V_DIM: tl.constexpr,
    V_WIDTH: tl.constexpr, V_STRIDE: tl.constexpr, GROUP: tl.constexpr, PAGE: tl.constexpr, KEYS: tl.constexpr,
    WINDOW: tl.constexpr, CAP: tl.constexpr, SCALED: tl.constexpr, SINKS: tl.constexpr, FLOAT32: tl.constexpr,
    GRID: tl.constexpr, SETS: tl.constexpr,
):  # fmt: skip
    """One item for one set of heads, on tiles of `LANES` queries."""
    lane, dims, v_dims = tl.arange(0, LANES), tl.arange(0, WIDTH), tl.arange(0, V_WIDTH)
    here = lane // GROUP < tl.load(item + 1)
    row = tl.load(item) + lane // GROUP
    heads = head * GROUP + lane % GROUP
    at_q = q + row[:, None] * q_stride + heads[:, None] * DIM
    mine = tl.load(at_q + dims[None, :], mask=here[:, None] & (dims < DIM)[None, :], other=0.0)
    mine = mine.to(tl.float32) if FLOAT32 else mine
    mine_rest = mine
    if REST > 0:
        rest = WIDTH + tl.arange(0, REST)
        mine_rest = tl.load(at_q + rest[None, :], mask=here[:, None] & (rest < DIM)[None, :], other=0.0)
        mine_rest = mine_rest.to(tl.float32) if FLOAT32 else mine_rest
    inside = here[:, None] & (v_dims < V_DIM)[None, :]
    position = tl.load(positions + row, mask=here, other=-1)
    mine_reads = _cells_of(reads, tile_of, row, here, head // SETS, tl.num_programs(1) // SETS, n_cells, GRID)
    top, total = tl.full([LANES], NOTHING, tl.float32), tl.zeros([LANES], tl.float32)
    mixed = tl.zeros([LANES, V_WIDTH], tl.float32)
    for at in range(tl.load(item + 2), tl.load(item + 3)):
        top, total, mixed = _read_run(
            top, total, mixed, mine, mine_rest, position, mine_reads, runs + at * 4, pages, keys, values, key_scales,
            value_scales, scale, DIM, WIDTH, REST, V_DIM, V_WIDTH, V_STRIDE, PAGE, KEYS, WINDOW, CAP, SCALED, FLOAT32,
            GRID,
        )  # fmt: skip
    place = tl.load(item + 4)
    if place < 0:
        if SINKS:
            sink = tl.load(sinks + heads, mask=here, other=0.0) * LOG2E
            both = tl.maximum(top, sink)
            total = total * tl.exp2(top - both) + tl.exp2(sink - both)
            mixed *= tl.exp2(top - both)[:, None]
        whole = mixed / tl.where(here, total, 1.0)[:, None]
        at_out = out + row[:, None] * out_stride + heads[:, None] * V_DIM + v_dims[None, :]
        tl.store(at_out, whole.to(out.dtype.element_ty), mask=inside)
    else:
        query = head.to(tl.int64) * queries + place + lane
        tl.store(tops + query * 2, top, mask=here)
        tl.store(tops + query * 2 + 1, total, mask=here)
        tl.store(partial + query[:, None] * V_DIM + v_dims[None, :], mixed, mask=inside)


@triton.jit(do_not_specialize=["queries", "n_cells"])  # they change with every step
def _attend(
    q, out, keys, values, key_scales, value_scales, pages, positions, items, runs, partial, tops, sinks,
    reads, tile_of, n_cells, q_stride, out_stride, n_slots, queries, scale,
    WIDE: tl.constexpr, NARROW: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, REST: tl.constexpr,
    V_DIM: tl.constexpr, V_WIDTH: tl.constexpr, V_STRIDE: tl.constexpr, GROUP: tl.constexpr, SETS: tl.constexpr,
    PAGE: tl.constexpr, KEYS: tl.constexpr, WINDOW: tl.constexpr, CAP: tl.constexpr, SCALED: tl.constexpr,
    SINKS: tl.constexpr, FLOAT32: tl.constexpr, GRID: tl.constexpr,
):  # fmt: skip
    """One program: an item and a set of query heads; `SETS` sets share a KV head. Few queries get a tile for few."""
    item, head = items + tl.program_id(0) * 5, tl.program_id(1)
    first = (head // SETS).to(tl.int64) * n_slots
    keys += first * DIM
    values += first * V_STRIDE
    key_scales += first
    value_scales += first
    if tl.load(item + 1) * GROUP <= NARROW:
        _attend_tile(
            q, out, keys, values, key_scales, value_scales, pages, positions, item, runs, partial, tops, sinks,
            reads, tile_of, n_cells, q_stride, out_stride, head, queries, scale,
            NARROW, DIM, WIDTH, REST, V_DIM, V_WIDTH, V_STRIDE, GROUP, PAGE, KEYS, WINDOW, CAP, SCALED, SINKS, FLOAT32,
            GRID, SETS,
        )  # fmt: skip
    else:
        _attend_tile(
            q, out, keys, values, key_scales, value_scales, pages, positions, item, runs, partial, tops, sinks,
            reads, tile_of, n_cells, q_stride, out_stride, head, queries, scale,
            WIDE, DIM, WIDTH, REST, V_DIM, V_WIDTH, V_STRIDE, GROUP, PAGE, KEYS, WINDOW, CAP, SCALED, SINKS, FLOAT32,
            GRID, SETS,
        )  # fmt: skip


@triton.jit(do_not_specialize=["queries"])  # it changes with every step
def _merge(
    out, partial, tops, merges, entries, sinks, out_stride, queries,
    V_DIM: tl.constexpr, V_WIDTH: tl.constexpr, GROUP: tl.constexpr, SINKS: tl.constexpr,
):  # fmt: skip
    """One program: the partial results of one row and one query head, in the order of the list; an entry that has none
    is not there."""
    merge, head = merges + tl.program_id(0) * 3, tl.program_id(1)
    dims = tl.arange(0, V_WIDTH)
    base = (head // GROUP).to(tl.int64) * queries + head % GROUP
    top, total, mixed = tl.full([], NOTHING, tl.float32), tl.zeros([], tl.float32), tl.zeros([V_WIDTH], tl.float32)
    if SINKS:
        top = tl.load(sinks + head) * LOG2E
        total += 1.0
    for at in range(tl.load(merge + 1), tl.load(merge + 2)):
        query = base + tl.load(entries + at)
        its_top = tl.load(tops + query * 2)
        new_top = tl.maximum(top, its_top)
        mine, its = tl.exp2(top - new_top), tl.exp2(its_top - new_top)
        total = total * mine + tl.load(tops + query * 2 + 1) * its
        mixed = mixed * mine + tl.load(partial + query * V_DIM + dims, mask=dims < V_DIM, other=0.0) * its
        top = new_top
    at_out = out + tl.load(merge) * out_stride + head * V_DIM + dims
    there = tl.load(merge + 2) > tl.load(merge + 1)
    whole = mixed / tl.where(there, total, 1.0)
    tl.store(at_out, whole.to(out.dtype.element_ty), mask=dims < tl.where(there, V_DIM, 0))


# Triton's interpreter multiplies the bits of bfloat16 as if they were whole numbers: there, products are of float32.
INTERPRETED = not isinstance(_attend, triton.runtime.JITFunction)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Sizes of tiles, in queries and keys: `wide` for prompts and shared runs, `narrow` for what few queries read."""

    wide: int = 64
    narrow: int = 16
    keys: int = 64


OF_LATENTS = Tiles(16, 16, 32)
"""For values of more than 256 numbers: sums of a tile then take as many registers, and less shared memory."""


@dataclass(frozen=True, slots=True)
class Heads:
    """What attention is of a layer (`shape`), in pages of `page_size` tokens and in `tiles`. A tile takes a set of
    `group` query heads that share a KV head, of which there may be more: then a KV head is read by several `sets`."""

    shape: KVShape
    page_size: int
    tiles: Tiles
    group: int
    sets: int

    @classmethod
    def of(cls, shape: KVShape, page_size: int, tiles: Tiles | None = None) -> Heads:
        """Sets as large as can be that fit the tiles, or tiles for the size of values."""
        tiles = tiles or (OF_LATENTS if shape.value_dim > 256 else Tiles())
        group = max(size for size in range(1, tiles.wide + 1) if shape.group_size % size == 0)
        return cls(shape, page_size, tiles, group, shape.group_size // group)

    @property
    def n_sets(self) -> int:
        """Sets of all KV heads."""
        return self.shape.n_kv_heads * self.sets

    @property
    def cut(self) -> tuple[int, int, int, int | None]:
        """By what a step's work is cut: rows of a tile, heads of a set, sets, window."""
        return self.tiles.wide // self.group, self.group, self.n_sets, self.shape.window


@dataclass(frozen=True, slots=True)
class DeviceWork:
    """A `Work` on the device, all int32: `pages` and `positions` are the step's."""

    items: Tensor
    runs: Tensor
    merges: Tensor
    entries: Tensor
    pages: Tensor
    positions: Tensor
    queries: int


def attend(
    work: DeviceWork,
    heads: Heads,
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    scales: tuple[Tensor, Tensor] | None = None,
    sinks: Tensor | None = None,
    view: View | None = None,
) -> Tensor:
    """Attention of `q` (`[rows, n_heads, key_dim]`, heads side by side) with the keys and values of one layer
    (`[n_kv_heads, slots, key_dim or value_dim]`): `[rows, n_heads, value_dim]` in q's type. `scales` are the
    dequantisation scales of keys and values (float32 `[n_kv_heads, slots]`), where they have some; `sinks` those of
    the layer (float32 `[n_heads]`), `view` what rows read, on the same device."""
    shape, tiles, n_sets, device = heads.shape, heads.tiles, heads.n_sets, q.device
    _check(shape, q, keys, values)
    check_sinks(shape, sinks)
    out = torch.empty((*q.shape[:2], shape.value_dim), dtype=q.dtype, device=device)
    partial = torch.empty((n_sets * work.queries, shape.value_dim), dtype=torch.float32, device=device)
    tops = torch.empty((n_sets * work.queries, 2), dtype=torch.float32, device=device)
    sink_of = tops if sinks is None else sinks
    if view is not None:
        view.check(len(q), shape.n_kv_heads)
    reads, tile_of = (tops, tops) if view is None else (view.reads, view.tile_of)
    n_cells = 0 if view is None else view.reads.shape[2]
    key_scales, value_scales = scales or (tops, tops)
    width, rest = _parts(shape.key_dim)
    sizes = {"V_DIM": shape.value_dim, "V_WIDTH": max(triton.next_power_of_2(shape.value_dim), 16)}
    sizes |= {"GROUP": heads.group, "SINKS": sinks is not None}
    grid = GRID if view is not None else 0
    _attend[len(work.items), n_sets](
        q, out, keys, values, key_scales, value_scales, work.pages, work.positions, work.items, work.runs, partial,
        tops, sink_of, reads, tile_of, n_cells, q.stride(0), out.stride(0), keys.shape[1], work.queries, shape.scale,
        WIDE=tiles.wide, NARROW=tiles.narrow, DIM=shape.key_dim, WIDTH=width, REST=rest, V_STRIDE=values.stride(1),
        SETS=heads.sets, PAGE=heads.page_size, KEYS=tiles.keys, WINDOW=shape.window or 0, CAP=shape.cap or 0.0,
        SCALED=scales is not None, GRID=grid, FLOAT32=q.dtype == torch.float32 or INTERPRETED, **sizes,
    )  # fmt: skip
    if len(work.merges):
        _merge[len(work.merges), shape.n_heads](
            out, partial, tops, work.merges, work.entries, sink_of, out.stride(0), work.queries, **sizes
        )
    return out


def _parts(dim: int) -> tuple[int, int]:
    """The numbers of a key in two parts that are powers of two, of which the second may be none."""
    whole = max(triton.next_power_of_2(dim + 1) // 2, 16)
    return whole, max(triton.next_power_of_2(dim - whole), 16) if dim > whole else 0


def _check(shape: KVShape, q: Tensor, keys: Tensor, values: Tensor) -> None:
    if q.shape[1:] != (shape.n_heads, shape.key_dim) or q.stride(1) != shape.key_dim or q.stride(2) != 1:
        raise ValueError(f"q {tuple(q.shape)} with strides {q.stride()} for {shape.n_heads} heads of {shape.key_dim}")
    stored = shape.n_kv_heads, keys.shape[1]
    fits = keys.shape == (*stored, shape.key_dim) and values.shape == (*stored, shape.value_dim)
    if not fits or not keys.is_contiguous() or values.stride() != (stored[1] * values.stride(1), values.stride(1), 1):
        found = f"keys {tuple(keys.shape)} and values {tuple(values.shape)} with strides {values.stride()}"
        raise ValueError(f"{found} for {shape}")

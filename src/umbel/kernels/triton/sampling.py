"""Sampling on a GPU, one program a sample: changes of logits, the largest one, and draws under top-k, top-p and min-p
without a sort.

What it means stands in `kernels/reference.py`. A filter keeps what lies above some weight, and of those equal to it the
ones with the lowest ids. That weight is found by bisection over the bits of its float32, which are in the order of the
weights: thirty passes over logits that lie in the chip's cache, whatever the vocabulary.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from umbel.kernels.reference import RACE_BLOCK, Filters

BLOCK = 4096  # logits read at a time
ENTRIES = 512  # changed at a time
RACING = tl.constexpr(RACE_BLOCK)
ONE = tl.constexpr(0x3F800000)  # the bits of 1.0, which no weight exceeds


@triton.jit
def _largest(logits, rows, ids, bad, width, BLOCK: tl.constexpr):
    """One row: where its largest logit is, the first of equal ones, and whether it is not finite or one is NaN."""
    at_row = tl.program_id(0)
    base = logits + tl.load(rows + at_row) * width
    top, place, torn = tl.full([], float("-inf"), tl.float32), 0 * at_row, 0 * at_row
    for low in range(0, width, BLOCK):
        at = low + tl.arange(0, BLOCK)
        found = tl.load(base + at, mask=at < width, other=float("-inf"))
        torn += tl.sum((found != found).to(tl.int32), 0)
        found = tl.where(found != found, float("-inf"), found)
        here = tl.max(found, 0)
        first = tl.min(tl.where(found == here, at, width), 0)
        place = tl.where(here > top, first, place)
        top = tl.maximum(top, here)
    tl.store(ids + at_row, place.to(tl.int64))
    tl.store(bad + at_row, (torn > 0) | (tl.abs(top) == float("inf")))


@triton.jit
def _change(logits, rows, begin, ids, bias, counts, penalties, width, BLOCK: tl.constexpr):
    """The entries of one draw, as `reference.change_logits` has them."""
    draw = tl.program_id(0)
    base = logits + tl.load(rows + draw) * width
    first, end = tl.load(begin + draw), tl.load(begin + draw + 1)
    repetition, frequency = tl.load(penalties + 3 * draw), tl.load(penalties + 3 * draw + 1)
    presence = tl.load(penalties + 3 * draw + 2)
    for low in range(first, end, BLOCK):
        at = low + tl.arange(0, BLOCK)
        there = at < end
        place, count = base + tl.load(ids + at, mask=there, other=0), tl.load(counts + at, mask=there, other=-1)
        found = tl.load(place, mask=there, other=0.0) + tl.load(bias + at, mask=there, other=0.0)
        repeated = tl.where(found > 0, tl.div_rn(found, repetition), found * repetition)
        found = tl.where(count < 0, found, repeated)
        found = found - frequency * tl.maximum(count, 0).to(tl.float32)
        tl.store(place, tl.where(count > 0, found - presence, found), mask=there)


@triton.jit
def _weights(base, low, width, top, temperature, floor, BLOCK: tl.constexpr):
    """Weights of some ids, the largest of the row 1; 0 for those under the floor."""
    at = low + tl.arange(0, BLOCK)
    found = tl.exp((tl.load(base + at, mask=at < width, other=float("-inf")) - top) / temperature)
    return tl.where(found.to(tl.float64) >= floor, found, 0.0), at


@triton.jit
def _above(base, width, top, temperature, floor, bits, BLOCK: tl.constexpr):
    """How many weights lie above the one with these bits, and their sum in float64."""
    count, total = 0 * width, tl.zeros([], tl.float64)
    for low in range(0, width, BLOCK):
        weights, _ = _weights(base, low, width, top, temperature, floor, BLOCK)
        over = weights.to(tl.int32, bitcast=True) > bits
        count += tl.sum(over.to(tl.int32), 0)
        total += tl.sum(tl.where(over, weights, 0.0).to(tl.float64), 0)
    return count, total


@triton.jit
def _top_k(base, width, top, temperature, floor, k, BLOCK: tl.constexpr):
    """The bits of the least weight that top-k keeps, how many equal to it stay, and the sum of all above it."""
    low, high = 0 * width - 1, 0 * width + ONE
    while high - low > 1:  # fewer than k weights lie above `high`, k or more above `low`
        middle = (low + high) // 2
        count, _ = _above(base, width, top, temperature, floor, middle, BLOCK)
        low, high = tl.where(count >= k, middle, low), tl.where(count >= k, high, middle)
    count, total = _above(base, width, top, temperature, floor, high, BLOCK)
    return high, k - count, total


@triton.jit
def _top_p(base, width, top, temperature, floor, edge, ties, above_edge, share, BLOCK: tl.constexpr):
    """The same for top-p, of what top-k has left (`edge`, `ties` and the sum above it)."""
    at_edge = edge.to(tl.float32, bitcast=True).to(tl.float64)
    wanted = share * (above_edge + at_edge * ties)
    low, high = edge - 1, 0 * width + ONE  # what lies above `high` is less than wanted, what lies above `low` is not
    while high - low > 1:
        middle = (low + high) // 2
        _, total = _above(base, width, top, temperature, floor, middle, BLOCK)
        low, high = tl.where(total >= wanted, middle, low), tl.where(total >= wanted, high, middle)
    _, total = _above(base, width, top, temperature, floor, high, BLOCK)
    value = high.to(tl.float32, bitcast=True).to(tl.float64)
    fit = tl.ceil((wanted - total) / value)  # the place of each of them is before `wanted`
    fit = tl.minimum(tl.maximum(fit, 1.0), 2147483647.0).to(tl.int32)
    return high, tl.where(high == edge, tl.minimum(fit, ties), fit)


@triton.jit
def _kept(base, low, width, top, temperature, floor, edge, ties, tied, FILTERS: tl.constexpr, BLOCK: tl.constexpr):
    """Weights of some ids that the filters leave; `tied` of those equal to the edge came before."""
    weights, at = _weights(base, low, width, top, temperature, floor, BLOCK)
    if FILTERS:
        bits = weights.to(tl.int32, bitcast=True)
        equal = (bits == edge).to(tl.int32)
        place = tied + tl.cumsum(equal, 0) - equal
        weights = tl.where((bits > edge) | ((equal > 0) & (place < ties)), weights, 0.0)
        tied += tl.sum(equal, 0)
    return weights, at, tied


@triton.jit
def _exponentials(key, counters):
    """Noise of some counters (int64) under a key: see `reference.exponentials`."""
    state = (key + (counters + 1) * -7046029254386353131).to(tl.uint64, bitcast=True)
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB
    state = state ^ (state >> 31)
    return -tl.log(((state >> 11).to(tl.float64) + 0.5) / 9007199254740992.0)


@triton.jit
def _times(key, counters, weights):
    """When each of some weights (float64) arrives in the race; never, where there is none."""
    times = _exponentials(key, counters) / tl.where(weights > 0, weights, 1.0)
    return tl.where(weights > 0, times, float("inf"))


@triton.jit
def _draw(
    logits, rows, best, temperatures, noise, top_k, top_p, min_p, ids, width,
    FILTERS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One draw, as `reference.race` has it: a block of ids by the sum of its weights, then an id in it."""
    draw = tl.program_id(0)
    base = logits + tl.load(rows + draw) * width
    first = tl.load(best + draw)
    top, temperature, key = tl.load(base + first), tl.load(temperatures + draw), tl.load(noise + draw)
    floor, edge, ties = tl.zeros([], tl.float64), 0 * width - 1, width
    if FILTERS:
        floor = tl.load(min_p + draw)
        k, share = tl.load(top_k + draw).to(tl.int32), tl.load(top_p + draw)
        k = tl.where((k == 0) | (k > width), width, k)
        edge, ties, above = _top_k(base, width, top, temperature, floor, k, BLOCK)
        if share < 1:
            edge, ties = _top_p(base, width, top, temperature, floor, edge, ties, above, share, BLOCK)
    least, winner, tied, before = tl.full([], float("inf"), tl.float64), 0 * width, 0 * width, 0 * width
    for low in range(0, width, BLOCK):
        weights, _, tied_now = _kept(base, low, width, top, temperature, floor, edge, ties, tied, FILTERS, BLOCK)
        sums = tl.sum(tl.reshape(weights.to(tl.float64), (BLOCK // RACING, RACING)), 1)
        blocks = low // RACING + tl.arange(0, BLOCK // RACING)
        times = _times(key, -1 - blocks.to(tl.int64), sums)
        here = tl.min(times, 0)
        found = tl.min(tl.where(times == here, blocks, width), 0)
        winner, before = tl.where(here < least, found, winner), tl.where(here < least, tied, before)
        least, tied = tl.minimum(least, here), tied_now
    low = winner * RACING // BLOCK * BLOCK
    weights, at, _ = _kept(base, low, width, top, temperature, floor, edge, ties, before, FILTERS, BLOCK)
    weights = tl.where(at // RACING == winner, weights, 0.0)
    times = _times(key, at.to(tl.int64), weights.to(tl.float64))
    here = tl.min(times, 0)
    found = tl.min(tl.where(times == here, at, width), 0).to(tl.int64)
    # A row that is not finite has no weights; its id only has to be one that there is.
    tl.store(ids + draw, tl.where(here < float("inf"), found, first))


def change_entries(
    logits: Tensor, rows: Tensor, begin: Tensor, ids: Tensor, bias: Tensor, counts: Tensor, penalties: Tensor
) -> None:
    """Change some rows (int64 `[k]`, each once) of float32 `logits` in place, by the columns of a LogitChanges."""
    if len(rows):
        _change[(len(rows),)](logits, rows, begin, ids, bias, counts, penalties, logits.shape[1], BLOCK=ENTRIES)


def find_largest(logits: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """For some rows (int64 `[k]`) of float32 `logits`: where the largest is (int64), and whether it is not finite."""
    ids = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    bad = torch.empty(len(rows), dtype=torch.bool, device=logits.device)
    if len(rows):
        _largest[(len(rows),)](logits, rows, ids, bad, logits.shape[1], BLOCK=BLOCK)
    return ids, bad


def draw_ids(
    logits: Tensor,
    rows: Tensor,
    best: Tensor,
    temperatures: Tensor,
    noise: Tensor,
    filters: Filters[Tensor] | None,
) -> Tensor:
    """Ids (int64 `[k]`) drawn from the softmax of some rows (int64 `[k]`) of float32 `logits`, whose largest values are
    at `best`, at their `temperatures` (float32), from what `filters` leave (`reference.Filters`), by the noise that
    `noise` (int64) keys."""
    ids = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    if len(rows):
        columns = (rows, noise, noise) if filters is None else filters.columns
        shape = {"FILTERS": filters is not None, "BLOCK": BLOCK}
        _draw[(len(rows),)](logits, rows, best, temperatures, noise, *columns, ids, logits.shape[1], **shape)
    return ids

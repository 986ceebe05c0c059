"""Small operations on rows on a GPU, one launch each: norms, rotary angles with new keys and values, the gate.

What each means stands in `kernels/reference.py`; values are rounded to the type of the tensors where the reference
rounds them, so that results differ from it by the order of a sum at most.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from umbel.kernels.fp8 import converts_fp8
from umbel.kernels.place import Place
from umbel.kernels.reference import Filters
from umbel.kernels.rotation import HeadRotation
from umbel.kernels.triton.experts import gated_clamped, multiply_by_expert, weighted_sum
from umbel.kernels.triton.fp8 import LARGEST, SMALLEST, round_e4m3, round_rows
from umbel.kernels.triton.sampling import change_entries, draw_ids, find_largest

_KINDS = (torch.float32, torch.bfloat16, torch.float16)


@triton.jit
def _norm_row(x, weight, eps, WIDTH: tl.constexpr, kind: tl.constexpr, there):
    """`weight * x / rms(x)` of rows of one program, rounded before the weight."""
    scale = tl.rsqrt(tl.sum(x * x, 1) / WIDTH + eps)
    return (x * scale[:, None]).to(kind).to(tl.float32) * tl.load(weight, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _rms_norm(x, delta, total, weight, out, eps, ADD: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    there = at < WIDTH
    place = tl.program_id(0).to(tl.int64) * WIDTH + at
    kind = out.dtype.element_ty
    values = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    if ADD:
        values = (values + tl.load(delta + place, mask=there, other=0.0).to(tl.float32)).to(kind)
        tl.store(total + place, values, mask=there)
        values = values.to(tl.float32)
    normed = _norm_row(values[None, :], weight + at[None, :], eps, WIDTH, kind, there[None, :])
    tl.store(out + place[None, :], normed.to(kind), mask=there[None, :])


@triton.jit
def _gated_silu(gate_up, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = at < WIDTH
    kind = out.dtype.element_ty
    gate = tl.load(gate_up + row * 2 * WIDTH + at, mask=there, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * WIDTH + WIDTH + at, mask=there, other=0.0).to(tl.float32)
    bent = (gate / (1.0 + tl.exp(-gate))).to(kind).to(tl.float32)
    tl.store(out + row * WIDTH + at, (bent * up).to(kind), mask=there)


@triton.jit
def _weighted(x, q_norm, k_norm, is_q, there, kind: tl.constexpr):
    """Rounded, times the weights of queries or of keys, rounded again."""
    weight = tl.where(is_q, tl.load(q_norm, mask=there, other=0.0), tl.load(k_norm, mask=there, other=0.0))
    return (x.to(kind).to(tl.float32) * weight.to(tl.float32)).to(kind).to(tl.float32)


@triton.jit
def _store_slot(first, second, stored, scales, slot, at, HALF: tl.constexpr, SCALED: tl.constexpr):
    """One vector, in two halves of float32, to its slot; with `SCALED` as fp8, and its dequantisation scale."""
    there = at < HALF
    if SCALED:
        largest = tl.maximum(tl.max(tl.abs(first), 0), tl.max(tl.abs(second), 0))
        scale = tl.maximum(tl.div_rn(largest, LARGEST), SMALLEST)
        first = round_e4m3(tl.minimum(tl.maximum(tl.div_rn(first, scale), -LARGEST), LARGEST))
        second = round_e4m3(tl.minimum(tl.maximum(tl.div_rn(second, scale), -LARGEST), LARGEST))
        tl.store(scales + slot, scale)
    to = stored + slot * 2 * HALF + at
    tl.store(to, first.to(stored.dtype.element_ty), mask=there)
    tl.store(to + HALF, second.to(stored.dtype.element_ty), mask=there)


@triton.jit
def _norm_and_rotate(
    heads, cos, sin, q_norm, k_norm, keys, values, key_scales, value_scales, slots, n_q, n_k, eps, n_slots,
    NORM: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr, STORE: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """One row and one head: queries and keys are normed and rotated in place; with STORE, keys and values go to their
    slot. Angles and products are rounded as tensors would be."""
    row, head, n_heads = tl.program_id(0).to(tl.int64), tl.program_id(1), n_q + 2 * n_k
    at = tl.arange(0, BLOCK)
    there = at < HALF
    place = heads + (row * n_heads + head) * 2 * HALF + at
    kind = heads.dtype.element_ty
    first = tl.load(place, mask=there, other=0.0).to(tl.float32)
    second = tl.load(place + HALF, mask=there, other=0.0).to(tl.float32)
    if head < n_q + n_k:
        if NORM:
            scale = tl.rsqrt((tl.sum(first * first, 0) + tl.sum(second * second, 0)) / (2 * HALF) + eps)
            first = _weighted(first * scale, q_norm + at, k_norm + at, head < n_q, there, kind)
            second = _weighted(second * scale, q_norm + HALF + at, k_norm + HALF + at, head < n_q, there, kind)
        c = tl.load(cos + row * HALF + at, mask=there, other=0.0).to(tl.float32)
        s = tl.load(sin + row * HALF + at, mask=there, other=0.0).to(tl.float32)
        rotated = (first * c).to(kind).to(tl.float32) - (second * s).to(kind).to(tl.float32)
        second = ((second * c).to(kind).to(tl.float32) + (first * s).to(kind).to(tl.float32)).to(kind).to(tl.float32)
        first = rotated.to(kind).to(tl.float32)
        tl.store(place, first.to(kind), mask=there)
        tl.store(place + HALF, second.to(kind), mask=there)
    if STORE:  # noqa: SIM102 (known when the kernel is compiled, unlike what follows)
        if head >= n_q:
            to = tl.load(slots + row)
            if head < n_q + n_k:
                slot = (head - n_q).to(tl.int64) * n_slots + to
                _store_slot(first, second, keys, key_scales, slot, at, HALF, SCALED)
            else:
                slot = (head - n_q - n_k).to(tl.int64) * n_slots + to
                _store_slot(first, second, values, value_scales, slot, at, HALF, SCALED)


# In Triton's interpreter the kernels take tensors of the processor.
INTERPRETED = not isinstance(_norm_and_rotate, triton.runtime.JITFunction)


class TritonRows:
    """The operations of `Native` on GPU tensors; shapes are those of `kernels/rows.py`, which asks `takes` first."""

    on_host = False  # what is drawn, and from which rows, are tensors on the device
    rounds_fp8 = True  # has `round_rows`
    groups_experts = True  # has `multiply_by_expert` and `weighted_sum`

    def takes(self, *tensors: Tensor) -> bool:
        """Whether all are on a GPU, contiguous and of one type that the kernels know."""
        kind = tensors[0].dtype
        return kind in _KINDS and all(
            (t.is_cuda or INTERPRETED) and t.dtype == kind and t.is_contiguous() for t in tensors
        )

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """`weight * x / rms(x)` along the last axis."""
        return self._norm(x, None, weight, eps)[1]

    def add_rms_norm(self, x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """`x + delta`, and its `rms_norm`."""
        if delta.shape != x.shape:
            raise ValueError(f"delta {tuple(delta.shape)} does not fit x {tuple(x.shape)}")
        return self._norm(x, delta, weight, eps)

    def gated_silu(self, gate_up: Tensor) -> Tensor:
        """`silu(gate) * up`: [rows, 2 * width] -> [rows, width]."""
        rows, width = len(gate_up), gate_up.shape[1] // 2
        out = gate_up.new_empty(rows, width)
        if rows:
            _gated_silu[rows, triton.cdiv(width, 1024)](gate_up, out, width, BLOCK=1024)
        return out

    def rotate(self, heads: Tensor, rotation: HeadRotation, place: Place) -> None:
        """Norm and rotate, in place, the queries and keys of `heads` (`[rows, n_q + 2 * n_k, head_dim]`), and store
        keys and values in their place; one launch, where the device has instructions for what the place holds."""
        rows, n_q, n_k, dim = len(heads), rotation.n_q, rotation.n_k, heads.shape[2]
        rotation.check(heads)
        place.check(rows, n_k, dim)
        norms = rotation.norms or rotation.angles
        stored = place.keys, place.values, *(place.scales or (place.keys, place.values)), place.slots
        numbers = n_q, n_k, rotation.eps, place.keys.shape[1]
        stores = place.scales is None or INTERPRETED or converts_fp8(heads.device)
        shape = {"HALF": dim // 2, "BLOCK": triton.next_power_of_2(dim // 2), "STORE": stores}
        shape |= {"NORM": rotation.norms is not None, "SCALED": place.scales is not None}
        if rows:
            _norm_and_rotate[rows, n_q + 2 * n_k](heads, *rotation.angles, *norms, *stored, *numbers, **shape)
        if not stores:
            place.write(heads[:, n_q : n_q + n_k], heads[:, n_q + n_k :])

    def round_rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows as e4m3 and their dequantisation scales."""
        return round_rows(x)

    def multiply_by_expert(self, x: Tensor, weights: Tensor, ends: Tensor, bias: Tensor | None = None) -> Tensor:
        """Products of rows that stand sorted by expert, in one launch."""
        return multiply_by_expert(x, weights, ends, bias)

    def gated_clamped(self, gate_up: Tensor, alpha: float, limit: float) -> Tensor:
        """gpt-oss's gate: [rows, 2 * width] -> [rows, width]."""
        return gated_clamped(gate_up, alpha, limit)

    def weighted_sum(self, parts: Tensor, places: Tensor, shares: Tensor) -> Tensor:
        """Results of experts times their shares, added up for each row."""
        return weighted_sum(parts, places, shares)

    def change_logits(self, logits: Tensor, rows: Tensor, *columns: Tensor) -> None:
        """Biases and penalties of some rows, in place; `columns` are those of a LogitChanges behind `draws`."""
        change_entries(logits, rows, *columns)

    def largest(self, logits: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Where the largest value of some rows is, and whether it is not finite."""
        return find_largest(logits, rows)

    def draw(
        self,
        logits: Tensor,
        rows: Tensor,
        best: Tensor,
        temperatures: Tensor,
        noise: Tensor,
        filters: Filters[Tensor] | None = None,
    ) -> Tensor:
        """Ids drawn from some rows."""
        return draw_ids(logits, rows, best, temperatures, noise, filters)

    def _norm(self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        width = x.shape[-1]
        if weight.shape != (width,):
            raise ValueError(f"weight {tuple(weight.shape)} does not fit x {tuple(x.shape)}")
        total, out = x if delta is None else torch.empty_like(x), torch.empty_like(x)
        rows, block = x.numel() // width, triton.next_power_of_2(width)
        if rows:
            tensors = x, x if delta is None else delta, total, weight, out
            _rms_norm[(rows,)](*tensors, eps, ADD=delta is not None, WIDTH=width, BLOCK=block)
        return total, out

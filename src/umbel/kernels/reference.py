"""The meaning of the kernels on rows, in plain torch: what runs where there are no compiled ones, and what they equal.

On a CPU in float32 the result of a row never depends on how many other rows are in the call, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from umbel.kernels.rotation import HeadRotation

LARGEST_FP8 = 448.0  # of e4m3
RACE_BLOCK = 256  # ids that share a first round of `race`; the compiled kernels have the same number
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15 - 2**64, 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64

Column = TypeVar("Column", np.ndarray, Tensor)


@dataclass(frozen=True, slots=True)
class Filters(Generic[Column]):
    """What each of k draws is restricted to: `top_k` (int64 `[k]`, 0: no limit), `top_p` (float64 `[k]`, 1: no limit),
    `min_p` (float64 `[k]`, 0: no limit)."""

    top_k: Column
    top_p: Column
    min_p: Column

    @property
    def columns(self) -> tuple[Column, Column, Column]:
        """The three, in this order."""
        return self.top_k, self.top_p, self.min_p

    def only(self, which: slice) -> Filters[Column]:
        """The filters of some draws."""
        return Filters(self.top_k[which], self.top_p[which], self.min_p[which])


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale the last axis to unit mean square, in float32, then cast back before the weight, as Hugging Face does."""
    wide = x.to(torch.float32)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


def gated_silu(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up`: [rows, 2 * intermediate] -> [rows, intermediate]."""
    gate, up = gate_up.chunk(2, dim=-1)
    if gate.is_cuda or gate.dtype != torch.float32:
        return F.silu(gate) * up
    # F.silu uses one exp for full vectors and another for what is left over at the end of a thread's share, so the
    # last bit would depend on the number of rows. torch.exp does not, and the rest is exactly rounded.
    denominator = torch.neg(gate).exp_().add_(1.0)
    return torch.div(gate, denominator, out=denominator).mul_(up)


def gated_clamped(gate_up: Tensor, alpha: float, limit: float) -> Tensor:
    """`gate * sigmoid(alpha * gate) * (up + 1)` of what was cut to `limit`, in float32: [rows, 2 * width] -> [rows,
    width]."""
    gate, up = gate_up.to(torch.float32).chunk(2, dim=-1)
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return (gate * sigmoid(alpha * gate) * (up + 1)).to(gate_up.dtype)


def sigmoid(x: Tensor) -> Tensor:
    """The logistic function, by exp for the reason given in `gated_silu`."""
    return torch.neg(x).exp_().add_(1.0).reciprocal_()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + head_dim / 2) of each head by the row's angles: [rows, heads, head_dim], same shape."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def norm_and_rotate(heads: Tensor, rotation: HeadRotation) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of `heads` (`[rows, n_q + 2 * n_k, head_dim]`), the first two normed and rotated."""
    q, k, v = heads.split((rotation.n_q, rotation.n_k, rotation.n_k), dim=1)
    if rotation.norms is not None:
        q_norm, k_norm = rotation.norms
        q, k = rms_norm(q, q_norm, rotation.eps), rms_norm(k, k_norm, rotation.eps)
    return rotate(q, *rotation.angles), rotate(k, *rotation.angles), v


def round_to_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors (`[..., width]`) as e4m3 and their dequantisation scales (float32 `[...]`): the largest value becomes the
    largest that e4m3 has."""
    wide = x.to(torch.float32)
    scale = wide.abs().amax(-1).div(LARGEST_FP8).clamp_min(torch.finfo(torch.float32).tiny)
    return (wide / scale.unsqueeze(-1)).clamp(-LARGEST_FP8, LARGEST_FP8).to(torch.float8_e4m3fn), scale


def round_to_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors (`[..., width]`) as int8 and their dequantisation scales (float32 `[...]`): the largest value becomes
    127. One that is not finite gets a scale that is not."""
    wide = x.to(torch.float32)
    most = wide.abs().amax(-1, keepdim=True)
    steps = torch.full_like(most, 127.0) / most  # divided, as the compiled kernels do
    fits = (most > 0) & most.isfinite()
    return torch.where(fits, wide * steps, 0.0).round().to(torch.int8), (most / 127.0).squeeze(-1)


def attend(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    cap: float = 0.0,
    sinks: Tensor | None = None,
    reads: Tensor | None = None,
) -> Tensor:
    """What one row's heads (`[n_kv_heads, group, dim]`) give for the keys and values they see (`[n_kv_heads, k, dim]`),
    or for those that each KV head `reads` (bool `[n_kv_heads, k]`): scores times `scale`, bent by `cap * tanh(score /
    cap)` where given; a sink per head (`[n_kv_heads, group]`) takes its share of the softmax and adds nothing."""
    scores = q @ keys.transpose(1, 2) * scale
    if cap:
        scores = cap * torch.tanh(scores / cap)
    if reads is not None:
        scores = scores.masked_fill(~reads.unsqueeze(1), -torch.inf)
    if sinks is not None:
        scores = torch.cat((sinks.to(scores.dtype).unsqueeze(-1), scores), -1)
    weights = torch.softmax(scores, -1)
    return (weights if sinks is None else weights[..., 1:]) @ values


def by_expert(x: Tensor, weights: Tensor, ends: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x[r] @ weights[e].T + bias[e]` for rows that stand sorted by expert, those of each up to `ends[e]`: [rows,
    inputs] and [experts, outputs, inputs] -> [rows, outputs]."""
    ranges = x.tensor_split(ends.cpu()[:-1])
    biases = [None] * len(weights) if bias is None else bias
    return torch.cat([F.linear(rows, w, b) for rows, w, b in zip(ranges, weights, biases, strict=True)])


def weighted_sum(parts: Tensor, places: Tensor, shares: Tensor) -> Tensor:
    """For each row the rows of `parts` at its `places`, times its `shares`, added up in float32 in this order: [n,
    width], [rows, each] twice -> [rows, width]."""
    total = parts[places[:, 0]].float() * shares[:, :1]
    for i in range(1, places.shape[1]):
        total += parts[places[:, i]].float() * shares[:, i : i + 1]
    return total.to(parts.dtype)


def from_int4(nibbles: Tensor, scales: Tensor, zeros: Tensor, group: int) -> Tensor:
    """The float32 weights (`[outputs, inputs]`) that 4-bit ones stand for, `(nibble - zero) * scale`: nibbles uint8
    `[outputs, inputs / 2]`, the first of two inputs in the low half; scale and zero (uint8) of an input are those of
    its `group` (`[outputs, groups]`). Nothing is rounded where scales have 16 bits."""
    values = torch.stack((nibbles & 15, nibbles >> 4), -1).flatten(1)
    if values.shape[1] == scales.shape[1] * group:
        groups = values.view(*scales.shape, group).float()
        return groups.sub_(zeros.float().unsqueeze(2)).mul_(scales.float().unsqueeze(2)).flatten(1)
    at = torch.arange(values.shape[1], device=values.device) // group
    return (values.float() - zeros.float()[:, at]) * scales.float()[:, at]


def largest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The place of each row's largest value, the first of equal ones, and whether it is not finite (`[rows]`)."""
    return logits.argmax(-1), ~torch.isfinite(logits.amax(-1))


def weights(logits: Tensor, temperatures: Tensor) -> Tensor:
    """Unnormalised probabilities of rows at their `temperatures` (`[k, 1]`), the largest 1."""
    return torch.exp((logits - logits.amax(-1, keepdim=True)) / temperatures)


def unpacked(masks: Tensor, vocab_size: int) -> Tensor:
    """Whether each token is in each mask: int32 `[masks, ceil(vocab / 32)]` (ir/token_masks.py) -> bool `[masks,
    vocab]`."""
    bits = torch.arange(32, dtype=torch.int32, device=masks.device)
    return (masks.unsqueeze(-1) >> bits & 1).flatten(1)[:, :vocab_size].bool()


def changed(
    found: np.ndarray,
    bias: np.ndarray,
    counts: np.ndarray,
    repetition: np.ndarray,
    frequency: np.ndarray,
    presence: np.ndarray,
) -> np.ndarray:
    """Logits (float32 `[n]`, like all but the counts) with their bias and penalties, as ir/logit_changes.py says."""
    found = found + bias
    found = np.where(counts < 0, found, np.where(found > 0, found / repetition, found * repetition))
    found -= frequency * np.maximum(counts, 0).astype(np.float32)
    return found - presence * (counts > 0)


def change_logits(logits: Tensor, places: Tensor, bias: Tensor, counts: Tensor, *penalties: Tensor) -> None:
    """The same in torch, in place, for entries of `logits` as one list (`places`, each once)."""
    repetition, frequency, presence = penalties
    found = logits.take(places) + bias
    found = found.where(counts < 0, torch.where(found > 0, found / repetition, found * repetition))
    found -= frequency * counts.clamp_min(0)
    logits.put_(places, found - presence * (counts > 0))


def filtered(weights: Tensor, filters: Filters[Tensor]) -> Tensor:
    """Weights (`[k, width]`, the largest of a row 1) with zeros for what the `Filters` remove: first min-p, then top-k,
    then top-p, each on what the one before left; of equal ones the lower id stays."""
    k, p, floor = (column.unsqueeze(-1) for column in filters.columns)
    values, order = torch.sort(weights, dim=-1, descending=True, stable=True)
    place = torch.arange(values.shape[-1], device=values.device)
    values = values.where((values >= floor) & ((place < k) | (k == 0)), 0)
    summed = values.cumsum(-1, dtype=torch.float64)
    before = summed - values
    # The first token always stays, so that top_p near 0 means greedy; without top-p rounding must remove nothing.
    values = values.where((before < p * summed[:, -1:]) | (place == 0) | (p >= 1), 0)
    return torch.zeros_like(weights).scatter_(-1, order, values)


def most_likely(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` largest of each row, in order, and their places; of equal ones the first (topk takes any)."""
    top, at = values.topk(k)
    at, by_place = at.sort(-1)
    top, by_value = torch.sort(top.gather(-1, by_place), dim=-1, descending=True, stable=True)
    at = at.gather(-1, by_value)
    torn = (values >= top[:, -1:]).sum(-1) > k  # others are equal to the last
    if torn.any():
        every, order = torch.sort(values[torn], dim=-1, descending=True, stable=True)
        top[torn], at[torn] = every[:, :k], order[:, :k]
    return top, at


def exponentials(keys: Tensor, counters: Tensor) -> Tensor:
    """Exponential noise (float64, above 0) of each counter under each key (int64, broadcast): -log(u), where u is the
    number at that place of splitmix64's stream from the key, as a uniform one."""
    state = keys + (counters + 1) * _GOLDEN
    state = (state ^ _shifted(state, 30)) * _MIX_1
    state = (state ^ _shifted(state, 27)) * _MIX_2
    state = state ^ _shifted(state, 31)
    return -torch.log((_shifted(state, 11).double() + 0.5) / 2.0**53)


def race(weights: Tensor, keys: Tensor) -> Tensor:
    """Ids (`[k]`) drawn in proportion to `weights` (`[k, width]`, at least 0) by the noise of `keys` (int64 `[k]`).

    The Gumbel-max rule in two rounds, as a race of exponential clocks: the block of `RACE_BLOCK` ids whose noise over
    the sum of its weights is least wins, then in it the id whose noise over its weight is least. Blocks keep the cost
    at a few hundred noises a draw. Two distributions that are nearly alike mostly give one id under one key.
    """
    n_ids = weights.shape[1]
    padded = F.pad(weights.double(), (0, -n_ids % RACE_BLOCK)).unflatten(1, (-1, RACE_BLOCK))
    places = torch.arange(max(padded.shape[1:]), device=weights.device)
    block = _winner(padded.sum(-1), keys, -1 - places[: padded.shape[1]])
    inside = padded[torch.arange(len(padded), device=weights.device), block]
    first = block.unsqueeze(-1) * RACE_BLOCK
    return (first.squeeze(-1) + _winner(inside, keys, first + places[:RACE_BLOCK])).clamp(max=n_ids - 1)


def _winner(weights: Tensor, keys: Tensor, counters: Tensor) -> Tensor:
    """The place in each row (`[k, n]`) of least noise over weight; what has no weight never wins against what has."""
    times = exponentials(keys.unsqueeze(-1), counters) / weights
    return times.where(weights > 0, torch.inf).argmin(-1)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """int64 shifted right as if it had no sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)

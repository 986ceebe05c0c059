"""Operations on rows, by the kernels that `dispatch` chose: compiled ones, Triton's on a GPU, else plain torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from umbel.ir.logit_changes import LogitChanges
from umbel.ir.token_masks import unpacked
from umbel.kernels import reference
from umbel.kernels.dispatch import kernels_for
from umbel.kernels.fp8 import converts_fp8
from umbel.kernels.place import Place
from umbel.kernels.rotation import HeadRotation
from umbel.kernels.transfer import upload

# Draws made at a time in plain torch: a copy of the logits for each would fill the memory.
_BLOCK = 64


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`weight * x / rms(x)` along the last axis."""
    return (kernels_for(x, weight) or reference).rms_norm(x, weight, eps)


def add_rms_norm(x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`x + delta`, and its `rms_norm`."""
    fast = kernels_for(x, delta, weight)
    if fast is None:
        total = x + delta
        return total, reference.rms_norm(total, weight, eps)
    return fast.add_rms_norm(x, delta, weight, eps)


def gated_silu(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up`: [rows, 2 * intermediate] -> [rows, intermediate]."""
    return (kernels_for(gate_up) or reference).gated_silu(gate_up)


def norm_and_rotate(heads: Tensor, rotation: HeadRotation, place: Place) -> Tensor:
    """Norms and rotates the queries and keys among `heads` (`[rows, n_q + 2 * n_k, head_dim]`, may be overwritten) and
    stores keys and values in their `place`; gives the queries (`[rows, n_q, head_dim]`)."""
    fast = kernels_for(heads, *rotation.tensors)
    if fast is not None:
        fast.rotate(heads, rotation, place)
        return heads[:, : rotation.n_q]
    q, k, v = reference.norm_and_rotate(heads, rotation)
    place.write(k, v)
    return q


def round_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (`[rows, width]`) as e4m3 and their dequantisation scales (float32 `[rows]`)."""
    fast = kernels_for(x)
    if fast is None or not fast.rounds_fp8 or not converts_fp8(x.device):
        return reference.round_to_fp8(x)
    return fast.round_rows(x)


def largest(logits: Tensor, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """For some rows (int64 `[k]`) of `logits`: where the largest value is, the first of equal ones, and whether it is
    not finite; on their device."""
    fast = kernels_for(logits) if logits.dtype == torch.float32 else None
    if fast is not None and fast.on_host:
        ids, bad = fast.argmax(logits, rows)
        return torch.from_numpy(ids), torch.from_numpy(bad)
    (at,) = upload(logits.device, rows)
    if fast is not None:
        return fast.largest(logits, at)
    places, torn = reference.largest(logits)
    return places[at], torn[at]


def forbid(logits: Tensor, rows: np.ndarray, mask: np.ndarray, masks: np.ndarray) -> None:
    """Put -inf into some rows (`[k]`, each once) of `logits` for the tokens that may not be drawn: those that are not
    in their masks, rows `mask` (`[k]`, -1: any may) of `masks` (uint32, see ir/token_masks.py)."""
    rows, mask = rows[mask >= 0], mask[mask >= 0]
    fast = kernels_for(logits) if logits.dtype == torch.float32 else None
    if fast is not None and fast.on_host:
        fast.forbid(logits, rows, mask, masks)
        return
    used, mask_of = np.unique(mask, return_inverse=True)  # most often all have the same
    width, others = logits.shape[1], ~masks[used]
    if logits.device.type == "cpu":
        at, places, forbidden = upload(logits.device, rows, mask_of, unpacked(others, width))
    else:
        at, places, words = upload(logits.device, rows, mask_of, others.view(np.int32))
        forbidden = reference.unpacked(words, width)
    logits[at] = logits[at].masked_fill_(forbidden[places], -torch.inf)


def change_logits(logits: Tensor, rows: np.ndarray, changes: LogitChanges) -> None:
    """Change some rows (`[k]`, each once) of `logits` in place, as LogitChanges says."""
    if len(changes.ids) == 0:
        return
    fast = kernels_for(logits) if logits.dtype == torch.float32 else None
    if fast is not None and not fast.on_host:
        columns = rows, changes.begin, changes.ids, changes.bias, changes.counts, changes.penalties
        fast.change_logits(logits, *upload(logits.device, *columns))
        return
    sizes = np.diff(changes.begin)
    places = np.repeat(rows * logits.shape[1], sizes) + changes.ids
    entries = changes.bias, changes.counts, *(np.repeat(column, sizes) for column in changes.penalties.T)
    if logits.device.type == "cpu":  # with numpy: torch would have its threads wait for each other a dozen times
        table = logits.view(-1).numpy()
        table[places] = reference.changed(table[places], *entries)
    else:
        reference.change_logits(logits, *upload(logits.device, places, *entries))


def draw(
    logits: Tensor,
    rows: np.ndarray,
    best: Tensor,
    temperatures: np.ndarray,
    noise: np.ndarray,
    filters: reference.Filters[np.ndarray] | None = None,
) -> Tensor:
    """Ids drawn from the softmax of some rows (`[k]`) of `logits`, whose largest values are at `best`, at their
    `temperatures`, from what the filters leave (None: from all); `noise` (int64) keys each draw's noise. On the logits'
    device."""
    fast = kernels_for(logits) if logits.dtype == torch.float32 else None
    if fast is not None and fast.on_host:
        return torch.from_numpy(fast.draw(logits, rows, best.numpy(), temperatures, noise, filters))
    columns = () if filters is None else filters.columns
    row, temperature, key, *cut = upload(logits.device, rows, temperatures.astype(np.float32), noise, *columns)
    on_device = reference.Filters(*cut) if cut else None
    if fast is not None:
        return fast.draw(logits, row, best, temperature, key, on_device)
    ids = torch.empty_like(best)
    for low in range(0, len(rows), _BLOCK):
        here = slice(low, low + _BLOCK)
        weights = reference.weights(logits[row[here]], temperature[here].unsqueeze(-1))
        if on_device is not None:
            weights = reference.filtered(weights, on_device.only(here))
        ids[here] = reference.race(weights, key[here])
    return ids

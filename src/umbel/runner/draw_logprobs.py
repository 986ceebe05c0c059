"""Log-probabilities of tokens that were drawn, and of the most likely ones beside them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from umbel.ir.step import Sampling
from umbel.kernels.reference import most_likely
from umbel.kernels.transfer import upload

# Draws handled at a time where each needs a copy of its logits: all copies at once would fill the memory.
_BLOCK = 64


def blocks(which: np.ndarray) -> Iterator[np.ndarray]:
    """Draws, some at a time."""
    return (which[low : low + _BLOCK] for low in range(0, len(which), _BLOCK))


def logprobs_of(
    logits: Tensor, row_of: np.ndarray, ids: Tensor, sampling: Sampling
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Log-probability of the chosen ids, and the most likely ids with theirs, as many as any draw asked for, or those
    that it named; None where none did."""
    asked = sampling.logprobs
    k, count = int(asked.max(initial=-1)), len(ids)
    if k < 0:
        return None
    chosen = torch.full((count,), torch.nan, dtype=torch.float64, device=ids.device)
    top_ids, top = ids.new_full((count, k), -1), chosen.new_full((count, k), torch.nan)
    for which in blocks(np.flatnonzero(asked >= 0)):
        rows, at = upload(ids.device, row_of[which], which)
        logp = torch.log_softmax(logits[rows].float(), -1)
        chosen[at] = logp.gather(-1, ids[at].unsqueeze(-1)).squeeze(-1).double()
        if k:
            values, found = most_likely(logp, k)
            if sampling.named is not None:
                values, found = _named(logp, sampling.named[which], values, found)
            top_ids[at], top[at] = found, values.double()
    return chosen, top_ids, top


def _named(logp: Tensor, named: np.ndarray, values: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The most likely ids of some draws with their log-probabilities, and in the place of each the id that was `named`
    there."""
    (wanted,) = upload(logp.device, named)
    wanted = torch.nn.functional.pad(wanted, (0, ids.shape[1] - wanted.shape[1]), value=-1)
    own = logp.gather(-1, wanted.clamp_min(0))
    return torch.where(wanted < 0, values, own), torch.where(wanted < 0, ids, wanted)

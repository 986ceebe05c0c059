"""From hidden states to vectors, for draws that give one instead of a token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from umbel.ir.columns import runs
from umbel.ir.step import Sampling
from umbel.ir.sums import MOST, UNIT, RowRanges
from umbel.kernels.transfer import upload
from umbel.models.decoder import Decoder
from umbel.runner.sampling import Draws


def pool_draws(decoder: Decoder, hidden: Tensor, row_of: np.ndarray, sampling: Sampling) -> Draws:
    """The draws of a step in which all give vectors: no logits are made. Draw i is of row `row_of[i]` of `hidden`
    (`[rows, hidden]`); vectors that are not finite are bad."""
    (rows,) = upload(hidden.device, row_of)
    vectors = decoder.pool(hidden)[rows]
    ids = torch.zeros(len(sampling), dtype=torch.int64, device=hidden.device)
    return Draws(ids, ~torch.isfinite(vectors).all(-1), None, vectors=vectors)


def pool_some(draws: Draws, decoder: Decoder, hidden: Tensor, row_of: np.ndarray, sampling: Sampling) -> Draws:
    """The draws of a step of which some give vectors; NaN stands where tokens were drawn."""
    assert sampling.pooled is not None
    at, rows = upload(hidden.device, sampling.pooled, row_of[sampling.pooled])
    found = decoder.pool(hidden[rows])
    vectors = torch.full((len(draws.ids), found.shape[1]), torch.nan, device=hidden.device)
    vectors[at] = found
    draws.bad[at] = ~torch.isfinite(found).all(-1)
    return replace(draws, vectors=vectors)


def rows_of(sums: RowRanges) -> np.ndarray:
    """The rows of a step that are summed (`[rows]`), range by range."""
    return runs(sums.begin, sums.end - sums.begin)


def sum_states(decoder: Decoder, hidden: Tensor, sums: RowRanges) -> tuple[Tensor, Tensor]:
    """What a StateSums says, of the hidden states of `rows_of(sums)` (`[rows, hidden]`)."""
    (of_run,) = upload(hidden.device, np.repeat(np.arange(len(sums.begin)), sums.end - sums.begin))
    states = decoder.pool(hidden)
    fits = (states.abs() < MOST).all(-1)
    units = torch.round(torch.where(fits[:, None], states, 0.0).double() / UNIT).long()
    total = units.new_zeros(len(sums.begin), states.shape[1]).index_add_(0, of_run, units)
    bad = torch.zeros(len(sums.begin), dtype=torch.int64, device=hidden.device)
    return total, bad.index_add_(0, of_run, (~fits).long()) > 0

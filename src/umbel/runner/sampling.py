"""From logits to tokens, in bulk: biases, penalties and masks, then greedy or temperature, min-p, top-k, top-p.

In this order (vLLM's), each on what the one before left; log-probabilities are of the logits as the model gave them.
Ties are broken by token id, the lower first, in every filter, in greedy choice and in the top log-probabilities. What
the filters leave is drawn from by keyed noise (`kernels.reference.race`): the same key gives distributions that are
nearly alike the same token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from umbel.ir.randomness import noise_keys
from umbel.ir.scores import TokenScores
from umbel.ir.step import Sampling, StepResult
from umbel.ir.sums import StateSums
from umbel.kernels.reference import Filters
from umbel.kernels.rows import change_logits, draw, forbid, largest
from umbel.kernels.transfer import upload
from umbel.runner.draw_logprobs import blocks, logprobs_of


@dataclass(frozen=True, slots=True)
class Draws:
    """What a StepResult says of draws, scores and vectors: tensors on a device that may still be at work on them."""

    ids: Tensor
    bad: Tensor
    logprobs: tuple[Tensor, Tensor, Tensor] | None
    scores: tuple[Tensor, Tensor, Tensor] | None = None
    vectors: Tensor | None = None
    sums: tuple[Tensor, Tensor] | None = None

    def fetch(self) -> Callable[[], StepResult]:
        """Have it copied to the processor; what is returned waits until it is there."""
        vectors = () if self.vectors is None else (self.vectors,)
        parts = (self.ids, self.bad), self.logprobs or (), self.scores or (), vectors, self.sums or ()
        copies = [[t.to("cpu", non_blocking=True) for t in part] for part in parts]
        done = torch.cuda.Event() if self.ids.is_cuda else None
        if done is not None:
            done.record()

        def wait() -> StepResult:
            if done is not None:
                done.synchronize()
            drawn, logprobs, scores, vectors, sums = ([copy.numpy() for copy in part] for part in copies)
            told = StepResult(*drawn, *logprobs, scores=TokenScores(*scores) if scores else None)
            if not vectors and not sums:
                return told
            return replace(told, vectors=vectors[0] if vectors else None, sums=StateSums(*sums) if sums else None)

        return wait


def sample(logits: Tensor, row_of: np.ndarray, sampling: Sampling) -> StepResult:
    """Draw one token for each entry. `logits` `[rows, vocab]` float32, may be overwritten; draw i is from row
    `row_of[i]`."""
    return draw_samples(logits, row_of, sampling).fetch()()


def draw_samples(logits: Tensor, row_of: np.ndarray, sampling: Sampling) -> Draws:
    """The same, without waiting for a device that works behind the caller's back. `logits` may be changed."""
    masked, apart = _masked(sampling), _apart(row_of, sampling)
    if (changes := sampling.changes) is not None:
        here = changes.only(~apart[changes.draws])
        change_logits(logits, row_of[here.draws], here)
    ids, bad = largest(logits, row_of)
    random = sampling.temperature > 0
    noise = noise_keys(sampling.streams, sampling.samples, sampling.positions)
    _redraw(ids, logits, row_of, sampling, np.flatnonzero(random & ~masked & ~apart), noise)
    if sampling.filled is not None:
        sampling.filled()
    if len(alone := np.flatnonzero(masked & ~apart)):
        _forbid(logits, row_of[alone], sampling, alone)
        _draw_again(ids, bad, logits, row_of, sampling, alone, noise)
    for which in blocks(np.flatnonzero(apart)):
        own, row_of_own = _own_logits(logits, row_of, sampling, which), np.zeros(len(ids), np.int64)
        row_of_own[which] = np.arange(len(which))
        _draw_again(ids, bad, own, row_of_own, sampling, which, noise)
    return Draws(ids, bad, logprobs_of(logits, row_of, ids, sampling))


def _draw_again(
    ids: Tensor,
    bad: Tensor,
    logits: Tensor,
    row_of: np.ndarray,
    sampling: Sampling,
    which: np.ndarray,
    noise: np.ndarray,
) -> None:
    """Replace the ids of the draws `which` by those of these logits, of which some may be forbidden."""
    (at,) = upload(ids.device, which)
    ids[at], nothing_left = largest(logits, row_of[which])
    bad[at] |= nothing_left
    _redraw(ids, logits, row_of, sampling, which[sampling.temperature[which] > 0], noise)


def _masked(sampling: Sampling) -> np.ndarray:
    """Which draws (`[draws]`) may not give any token."""
    return np.zeros(len(sampling), bool) if sampling.mask is None else sampling.mask >= 0


def _apart(row_of: np.ndarray, sampling: Sampling) -> np.ndarray:
    """The draws (`[draws]`) that need logits of their own: those whose masks and changes must not be seen by other
    draws of the row or by its log-probabilities."""
    touched = _masked(sampling)
    if sampling.changes is not None:
        touched[sampling.changes.draws] = True
    if touched.any():
        touched &= (np.bincount(row_of)[row_of] > 1) | (sampling.logprobs >= 0)
    return touched


def _own_logits(logits: Tensor, row_of: np.ndarray, sampling: Sampling, which: np.ndarray) -> Tensor:
    """The logits of some draws as these are made from them: a copy, masked and changed."""
    (at,) = upload(logits.device, row_of[which])
    own = logits[at]
    _forbid(own, np.arange(len(which)), sampling, which)
    if sampling.changes is not None:
        changes = sampling.changes.of(which)
        change_logits(own, changes.draws, changes)
    return own


def _forbid(logits: Tensor, rows: np.ndarray, sampling: Sampling, which: np.ndarray) -> None:
    """Leave in some rows of the logits what the draws `which` may give."""
    if sampling.mask is not None and sampling.masks is not None:
        forbid(logits, rows, sampling.mask[which], sampling.masks)


def _redraw(
    ids: Tensor, logits: Tensor, row_of: np.ndarray, sampling: Sampling, which: np.ndarray, noise: np.ndarray
) -> None:
    """Replace the most likely tokens by random ones, for the draws `which`."""
    if len(which) == 0:
        return
    filters = Filters(sampling.top_k[which], sampling.top_p[which], sampling.min_p[which])
    cut = bool((filters.top_k > 0).any() or (filters.top_p < 1).any() or (filters.min_p > 0).any())
    (at,) = upload(ids.device, which)
    temperatures = sampling.temperature[which]
    ids[at] = draw(logits, row_of[which], ids[at], temperatures, noise[which], filters if cut else None)

"""From logits to tokens, in bulk: greedy, temperature, min-p, top-k, top-p, log-probabilities.

Order of the filters: temperature, min-p, top-k, top-p (as in vLLM), each on what the one before left. Ties are broken
by token id, the lower first, in every filter, in greedy choice and in the top log-probabilities. What the filters
leave is drawn from in the order of token ids.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from umbel.ir.step import Sampling, StepResult
from umbel.kernels.reference import most_likely
from umbel.kernels.rows import draw, largest
from umbel.runner.random import uniform

# Samples handled at a time: n samples of one row share its logits, and a copy for each would fill the memory.
_BLOCK = 64


def sample(logits: Tensor, row_of: np.ndarray, sampling: Sampling) -> StepResult:
    """Draw one token for each sample. `logits` `[rows, vocab]` float32; sample i draws from row `row_of[i]`."""
    ids, bad = largest(logits, row_of)
    bans, warm = dict(sampling.banned), sampling.temperature > 0
    dice = uniform(sampling.seeds, sampling.keys, sampling.samples, sampling.positions) if warm.any() else np.zeros(0)
    banned = np.zeros(len(ids), bool)
    banned[list(bans)] = True
    free = np.flatnonzero(warm & ~banned)
    ids[free] = _draw(logits, row_of[free], ids[free], sampling, free, dice)
    for which in _blocks(np.flatnonzero(banned)):
        own = logits[torch.from_numpy(row_of[which]).to(logits.device)]
        for row, i in enumerate(which.tolist()):
            own[row, list(bans[i])] = -torch.inf
        ids[which] = largest(own, np.arange(len(which)))[0]
        at = np.flatnonzero(warm[which])
        ids[which[at]] = _draw(own, at, ids[which[at]], sampling, which[at], dice)
    return StepResult(ids, bad, *_logprobs(logits, row_of, ids, sampling.logprobs))


def _blocks(which: np.ndarray) -> Iterator[np.ndarray]:
    return (which[low : low + _BLOCK] for low in range(0, len(which), _BLOCK))


def _draw(
    logits: Tensor, rows: np.ndarray, best: np.ndarray, sampling: Sampling, which: np.ndarray, dice: np.ndarray
) -> np.ndarray:
    """Token ids of the samples `which`, drawn from `rows` of the logits."""
    if len(which) == 0:
        return best
    filters = sampling.top_k[which], sampling.top_p[which], sampling.min_p[which]
    cut = bool((filters[0] > 0).any() or (filters[1] < 1).any() or (filters[2] > 0).any())
    return draw(logits, rows, best, sampling.temperature[which], dice[which], filters if cut else None)


def _logprobs(
    logits: Tensor, row_of: np.ndarray, ids: np.ndarray, asked: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Log-probability of the chosen ids, and the most likely ids with theirs, as many as any sample `asked` for; None
    where none did."""
    k, count = int(asked.max(initial=-1)), len(ids)
    if k < 0:
        return None, None, None
    chosen, top_ids, top = np.full(count, np.nan), np.full((count, k), -1, np.int64), np.full((count, k), np.nan)
    for which in _blocks(np.flatnonzero(asked >= 0)):
        logp = torch.log_softmax(logits[torch.from_numpy(row_of[which]).to(logits.device)].float(), -1)
        picked = torch.from_numpy(ids[which]).to(logp.device).unsqueeze(-1)
        chosen[which] = logp.gather(-1, picked).squeeze(-1).double().cpu().numpy()
        if k:
            values, order = most_likely(logp, k)
            top_ids[which], top[which] = order.cpu().numpy(), values.double().cpu().numpy()
    return chosen, top_ids, top

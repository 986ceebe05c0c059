"""From logits to tokens, in bulk: greedy, temperature, min-p, top-k, top-p, log-probabilities.

Order of the filters: temperature, min-p, top-k, top-p (as in vLLM), each on what the one before left. Ties are broken
by token id, the lower first, in every filter, in greedy choice and in the top log-probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from umbel.ir.step import Sampling, StepResult
from umbel.kernels.reference import invert, weights
from umbel.kernels.rows import draw, largest
from umbel.runner.random import uniform

# Samples handled at a time: n samples of one row share its logits, and a copy for each would fill the memory.
_BLOCK = 64


def sample(logits: Tensor, row_of: np.ndarray, sampling: Sampling) -> StepResult:
    """Draw one token for each sample. `logits` `[rows, vocab]` float32; sample i draws from row `row_of[i]`."""
    ids, bad = largest(logits, row_of)
    bans, warm = dict(sampling.banned), sampling.temperature > 0
    dice = uniform(sampling.seeds, sampling.keys, sampling.samples, sampling.positions) if warm.any() else np.zeros(0)
    cut = warm & ((sampling.top_k > 0) | (sampling.top_p < 1) | (sampling.min_p > 0))
    special = cut.copy()
    special[list(bans)] = True
    free = np.flatnonzero(warm & ~special)
    if len(free):
        ids[free] = draw(logits, row_of[free], ids[free], sampling.temperature[free], dice[free])
    for which in _blocks(np.flatnonzero(special)):
        own = logits[torch.from_numpy(row_of[which]).to(logits.device)]
        for row in np.flatnonzero([i in bans for i in which.tolist()]).tolist():
            own[row, list(bans[int(which[row])])] = -torch.inf
        ids[which] = _choose(own, sampling, which, cut[which], dice)
    return StepResult(ids, bad, *_logprobs(logits, row_of, ids, sampling.logprobs))


def _blocks(which: np.ndarray) -> Iterator[np.ndarray]:
    return (which[low : low + _BLOCK] for low in range(0, len(which), _BLOCK))


def _choose(logits: Tensor, sampling: Sampling, which: np.ndarray, cut: np.ndarray, dice: np.ndarray) -> np.ndarray:
    """Token ids of the samples `which`, one per row of `logits`; `cut` says which of them have filters."""
    ids, heat = largest(logits, np.arange(len(which)))[0], sampling.temperature[which]
    plain, cut = np.flatnonzero((heat > 0) & ~cut), np.flatnonzero(cut)
    if len(plain):
        ids[plain] = draw(logits, plain, ids[plain], heat[plain], dice[which[plain]])
    if len(cut):
        at, hot, thrown = (torch.from_numpy(t).to(logits.device) for t in (cut, heat[cut], dice[which[cut]]))
        spread = weights(logits[at], hot.to(torch.float32).unsqueeze(-1))
        values, order = torch.sort(spread, dim=-1, descending=True, stable=True)
        picked = invert(_truncate(values, sampling, which[cut]), thrown.unsqueeze(-1))
        ids[cut] = order.gather(-1, picked.unsqueeze(-1)).squeeze(-1).cpu().numpy()
    return ids


def _truncate(values: Tensor, sampling: Sampling, which: np.ndarray) -> Tensor:
    """Zero what the filters of the samples `which` remove; `values` are weights, sorted, largest (1) first."""
    k = torch.from_numpy(sampling.top_k[which]).to(values.device).unsqueeze(-1)
    p = torch.from_numpy(sampling.top_p[which]).to(values.device).unsqueeze(-1)
    floor = torch.from_numpy(sampling.min_p[which]).to(values.device).unsqueeze(-1)
    place = torch.arange(values.shape[-1], device=values.device)
    values = values.where((values >= floor) & ((place < k) | (k == 0)), 0)
    summed = values.cumsum(-1, dtype=torch.float64)
    before = summed - values
    # The first token always stays, so that top_p near 0 means greedy.
    return values.where((before < p * summed[:, -1:]) | (place == 0), 0)


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
        values, order = torch.sort(logp, dim=-1, descending=True, stable=True)
        top_ids[which] = order[:, :k].cpu().numpy()
        top[which] = values[:, :k].double().cpu().numpy()
    return chosen, top_ids, top

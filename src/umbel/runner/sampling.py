"""From logits to tokens, in bulk: greedy, temperature, min-p, top-k, top-p, log-probabilities.

Order of the filters: temperature, min-p, top-k, top-p (as in vLLM), each on what the one before left. Ties are broken
by token id, the lower first, in every filter, in greedy choice and in the top log-probabilities.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from umbel.ir.step import Sampling, StepResult
from umbel.kernels.rows import largest
from umbel.runner.random import uniform

# Samples handled at a time: n samples of one row share its logits, and a copy for each would fill the memory.
_BLOCK = 64


def sample(logits: Tensor, row_of: np.ndarray, sampling: Sampling) -> StepResult:
    """Draw one token for each sample. `logits` `[rows, vocab]` float32; sample i draws from row `row_of[i]`."""
    if _plain(sampling):
        return StepResult(*largest(logits, row_of))
    count = len(sampling)
    k = int(sampling.logprobs.max(initial=-1))
    ids = np.empty(count, np.int64)
    bad = np.zeros(count, bool)
    chosen = np.full(count, np.nan) if k >= 0 else None
    top_ids = np.full((count, k), -1, np.int64) if k >= 0 else None
    top = np.full((count, k), np.nan) if k >= 0 else None
    draws = uniform(sampling.seeds, sampling.keys, sampling.samples, sampling.positions)
    bans = dict(sampling.banned)
    for low in range(0, count, _BLOCK):
        at = slice(low, min(low + _BLOCK, count))
        raw = logits[torch.from_numpy(row_of[at]).to(logits.device)]
        bad[at] = ~torch.isfinite(raw.amax(-1)).cpu().numpy()
        allowed = _without_banned(raw, {i - low: bans[i] for i in range(low, at.stop) if i in bans})
        ids[at] = _choose(allowed, sampling, at, draws[at]).cpu().numpy()
        if chosen is not None and (sampling.logprobs[at] >= 0).any():
            chosen[at], top_ids[at], top[at] = _logprobs(raw, ids[at], k)
    return StepResult(ids, bad, chosen, top_ids, top)


def _plain(sampling: Sampling) -> bool:
    """Greedy choices and nothing else: no copy of the logits is needed."""
    return not sampling.banned and not (sampling.temperature > 0).any() and not (sampling.logprobs >= 0).any()


def _without_banned(logits: Tensor, bans: dict[int, tuple[int, ...]]) -> Tensor:
    """A copy with the banned ids of some samples at minus infinity (the input itself when there are none)."""
    if not bans:
        return logits
    logits = logits.clone()
    for i, ids in bans.items():
        logits[i, list(ids)] = -torch.inf
    return logits


def _choose(logits: Tensor, sampling: Sampling, at: slice, draws: np.ndarray) -> Tensor:
    """Token ids of a block of samples (`[k]`)."""
    ids = logits.argmax(-1)
    random = np.flatnonzero(sampling.temperature[at] > 0)
    if len(random) == 0:
        return ids
    cut = _truncates(sampling, at)
    plain, sorted_ = random[~cut[random]], random[cut[random]]
    heat = torch.from_numpy(sampling.temperature[at]).to(logits.device, torch.float32).unsqueeze(-1)
    dice = torch.from_numpy(draws).to(logits.device).unsqueeze(-1)
    if len(plain):
        i = torch.from_numpy(plain).to(logits.device)
        ids[i] = _draw(_weights(logits[i], heat[i]), dice[i])
    if len(sorted_):
        i = torch.from_numpy(sorted_).to(logits.device)
        values, order = torch.sort(_weights(logits[i], heat[i]), dim=-1, descending=True, stable=True)
        picked = _draw(_truncate(values, sampling, at, sorted_), dice[i])
        ids[i] = order.gather(-1, picked.unsqueeze(-1)).squeeze(-1)
    return ids


def _truncates(sampling: Sampling, at: slice) -> np.ndarray:
    return (sampling.top_k[at] > 0) | (sampling.top_p[at] < 1) | (sampling.min_p[at] > 0)


def _weights(logits: Tensor, heat: Tensor) -> Tensor:
    """Unnormalised probabilities, the largest 1."""
    return torch.exp((logits - logits.amax(-1, keepdim=True)) / heat)


def _truncate(weights: Tensor, sampling: Sampling, at: slice, which: np.ndarray) -> Tensor:
    """Zero what the filters remove; `weights` are sorted, largest (1) first."""
    k = torch.from_numpy(sampling.top_k[at][which]).to(weights.device).unsqueeze(-1)
    p = torch.from_numpy(sampling.top_p[at][which]).to(weights.device).unsqueeze(-1)
    floor = torch.from_numpy(sampling.min_p[at][which]).to(weights.device).unsqueeze(-1)
    place = torch.arange(weights.shape[-1], device=weights.device)
    weights = weights.where((weights >= floor) & ((place < k) | (k == 0)), 0)
    summed = weights.cumsum(-1, dtype=torch.float64)
    before = summed - weights
    # The first token always stays, so that top_p near 0 means greedy.
    return weights.where((before < p * summed[:, -1:]) | (place == 0), 0)


def _draw(weights: Tensor, dice: Tensor) -> Tensor:
    """Invert the distribution function at `dice` (`[k, 1]`, in (0, 1)); float64, so that rounding does not decide."""
    summed = weights.cumsum(-1, dtype=torch.float64)
    ids = torch.searchsorted(summed, dice * summed[:, -1:], right=True).squeeze(-1)
    # Rounding can put the target on the total; the last token with any weight is then meant.
    last = weights.shape[-1] - 1 - (weights > 0).flip(-1).to(torch.uint8).argmax(-1)
    return torch.minimum(ids, last)


def _logprobs(logits: Tensor, ids: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probability of the chosen ids, and the `k` most likely ids with theirs."""
    logp = torch.log_softmax(logits.float(), -1)
    chosen = logp.gather(-1, torch.from_numpy(ids).to(logp.device).unsqueeze(-1)).squeeze(-1)
    values, order = torch.sort(logp, dim=-1, descending=True, stable=True)
    return chosen.double().cpu().numpy(), order[:, :k].cpu().numpy(), values[:, :k].double().cpu().numpy()

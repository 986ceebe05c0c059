"""From hidden states to log-probabilities of given tokens, a block of rows at a time: the logits of a whole prompt
would take more memory than its KV."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from umbel.ir.scores import Scores
from umbel.kernels.reference import most_likely
from umbel.kernels.transfer import upload
from umbel.models.decoder import Decoder

BLOCK = 64  # rows of which there are logits at a time


def score_tokens(decoder: Decoder, hidden: Tensor, scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
    """What a TokenScores says, as tensors on the device. `hidden` (`[rows, hidden]`): a row for each distinct entry of
    `scores.at`, ascending."""
    _, row_of = np.unique(scores.at, return_inverse=True)
    order = np.argsort(row_of, kind="stable")
    edges = np.searchsorted(row_of[order], np.arange(0, len(hidden) + BLOCK, BLOCK))
    logprobs = torch.empty(len(scores), dtype=torch.float64, device=hidden.device)
    top_ids = torch.empty((len(scores), scores.top), dtype=torch.int64, device=hidden.device)
    top = logprobs.new_empty((len(scores), scores.top))
    for block, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        which = order[low:high]
        logits = decoder.logits(hidden[block * BLOCK : (block + 1) * BLOCK])
        at, rows, targets = upload(hidden.device, which, row_of[which] - block * BLOCK, scores.targets[which])
        logp = torch.log_softmax(logits, -1)
        logprobs[at] = logp[rows, targets].double()
        if scores.top:
            values, ids = most_likely(logp, scores.top)
            top_ids[at], top[at] = ids[rows], values[rows].double()
    return logprobs, top_ids, top

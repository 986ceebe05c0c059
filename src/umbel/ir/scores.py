"""Log-probabilities of tokens that are known already: what a step is asked for, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.params import SamplingParams

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scores:
    """What a step scores, one entry per token (`[scores]`).

    `at`: the index of the step's token whose logits are used (several entries may share one). `targets`: the ids whose
    log-probabilities are wanted. `top`: how many of the most likely ids are wanted with theirs, beside each.
    """

    at: Ints
    targets: Ints
    top: int = 0

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, slots=True)
class TokenScores:
    """The log-probabilities of the targets (`[scores]`) under the unscaled distribution; `top_ids`, `top_logprobs`
    (`[scores, top]`) the most likely ids with theirs, best first."""

    logprobs: Floats
    top_ids: Ints
    top_logprobs: Floats


def scoring_params(n_prompt: int) -> SamplingParams:
    """What asks for the log-probabilities of all tokens behind the first `n_prompt`, and for no answer."""
    return SamplingParams(temperature=0.0, max_tokens=0, prompt_logprobs=0, logprob_start_len=n_prompt)

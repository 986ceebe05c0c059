"""The sampling fields of a workload as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.params import SamplingParams
from umbel.ir.randomness import streams
from umbel.ir.workload import Workload

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SamplingTable:
    """The sampling fields of every row as columns (`[rows]`), so that a step gathers them at once."""

    n: Ints
    temperature: NDArray[np.float64]
    top_k: Ints
    top_p: NDArray[np.float64]
    min_p: NDArray[np.float64]
    stream: Ints
    key: Ints
    logprobs: Ints
    min_tokens: Ints
    end_ids: tuple[tuple[int, ...], ...]  # ids that end the row, per row; banned before `min_tokens`

    @classmethod
    def of(cls, workload: Workload, default_seed: int, end_ids: tuple[tuple[int, ...], ...]) -> SamplingTable:
        """Columns of a workload's params; rows without a seed draw by `default_seed` and their key."""
        params = workload.params

        own = np.array([p.seed is not None for p in params], bool)

        def ints(values: list[int]) -> Ints:
            return np.array(values, np.int64)

        return cls(
            n=ints([p.n for p in params]),
            temperature=np.array([p.temperature for p in params], float),
            top_k=ints([max(p.top_k, 0) for p in params]),
            top_p=np.array([p.top_p for p in params], float),
            min_p=np.array([p.min_p for p in params], float),
            stream=streams(ints([_seed(p, default_seed) for p in params]), workload.noise_keys, own),
            key=workload.keys,
            logprobs=ints([-1 if p.logprobs is None else p.logprobs for p in params]),
            min_tokens=ints([p.min_tokens for p in params]),
            end_ids=end_ids,
        )


def _seed(params: SamplingParams, default: int) -> int:
    return default if params.seed is None else params.seed

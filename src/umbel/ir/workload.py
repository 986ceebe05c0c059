"""The prompts of a batch as one flat token array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.distinct import Distinct
from umbel.ir.documents import Documents
from umbel.ir.params import SamplingParams

ADAPTER = 2**29 - 1  # the bits of a scope that are the number of an adapter
WHOLE_PROMPTS, WHOLE_ANSWERS, TENANT = 2**29, 2**30, 2**31  # the bits above: see RowTechniques, and whose it is


@dataclass(frozen=True, slots=True)
class Workload:
    """Tokenised rows: row i is `tokens[offsets[i]:offsets[i + 1]]`, sampled as `params[i]`, known as `keys[i]`.

    `keys` (`[rows]`, int64) is the row's number in the whole input. It keys the randomness of a row without a seed of
    its own, unless `draw_keys` are given for that, so that its answer does not depend on which other rows are run with
    it. Rows that are invalid are never in a workload.
    `scope` (`[rows]`, int64) is what the KV of a row depends on beside its tokens: the number of its adapter, 0 for
    none, and in the bits above ADAPTER what it leaves out of an engine's techniques, and whose it is. Only rows of one
    scope share KV. None: all rows are of scope 0. `documents`: runs of tokens that are computed as prompts of their
    own; None: none are.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    params: Sequence[SamplingParams]
    keys: NDArray[np.int64]
    draw_keys: NDArray[np.int64] | None = None
    scope: NDArray[np.int64] | None = None
    documents: Documents | None = None

    @classmethod
    def of(
        cls,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams],
        keys: Sequence[int] | None = None,
        draw_keys: Sequence[int] | None = None,
        scope: Sequence[int] | None = None,
    ) -> Workload:
        """Pack token-id lists; one `params` may serve all rows; `keys` default to the row numbers."""
        offsets = np.zeros(len(prompts) + 1, np.int64)
        np.cumsum([len(p) for p in prompts], out=offsets[1:])
        tokens = np.empty(int(offsets[-1]), np.int32)
        for i, prompt in enumerate(prompts):
            tokens[offsets[i] : offsets[i + 1]] = prompt
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
        numbers = np.arange(len(prompts)) if keys is None else np.asarray(keys, np.int64)
        drawn, scopes = (None if column is None else np.asarray(column, np.int64) for column in (draw_keys, scope))
        return cls(tokens, offsets, each, numbers, drawn, scopes)

    @property
    def noise_keys(self) -> NDArray[np.int64]:
        """The keys of the randomness of rows without a seed of their own (`[rows]`)."""
        return self.keys if self.draw_keys is None else self.draw_keys

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def longest_answers(self, context: int) -> NDArray[np.int64]:
        """Tokens that each sample of a row may draw (`[rows]`, at least 1): its `max_tokens`, or what a context of so
        many tokens leaves. A row with `max_tokens` 0 draws one, which does not count."""
        room = np.maximum(context - np.diff(self.offsets), 1)
        asked = Distinct.of(self.params).column(lambda p: context if p.max_tokens is None else p.max_tokens)
        longest: NDArray[np.int64] = np.maximum(np.minimum(room, asked), 1)
        return longest

    def prompt(self, row: int) -> NDArray[np.int32]:
        """The token ids of one row."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

"""The work of steps, in numbers that a plan can predict and a run can count."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Load:
    """Steps of the same kind, one entry each: how many there are (`steps`), and what one of them does.

    `tokens`: tokens computed.
    `samples`: tokens whose logits are made, to draw from or to score the next one.
    `pairs`: pairs of a query and a key it sees.
    `kv_read`: tokens whose KV is read; what many rows read together counts once, as in StepResult.kv_tokens_read.
    `draws`: samples that are drawn at random (zero where not given).
    """

    steps: Floats
    tokens: Floats
    samples: Floats
    pairs: Floats
    kv_read: Floats
    draws: Floats = field(default_factory=lambda: np.zeros(1))

    def __post_init__(self) -> None:
        object.__setattr__(self, "draws", np.broadcast_to(self.draws, self.steps.shape))

    @classmethod
    def one(cls, tokens: float, samples: float, pairs: float, kv_read: float) -> Load:
        """A single greedy step."""
        return cls(*(np.array([float(value)]) for value in (1, tokens, samples, pairs, kv_read)))

    def pick(self, which: NDArray[np.bool_]) -> Load:
        """Some of the entries (`which`, `[entries]`)."""
        columns = (self.steps, self.tokens, self.samples, self.pairs, self.kv_read, self.draws)
        return Load(*(column[which] for column in columns))

    def drawing(self, share: float) -> Load:
        """The same steps, with this share of their samples drawn at random."""
        return replace(self, draws=self.samples * share)

    def scoring(self, tokens: int) -> Load:
        """The same steps, with the logits of so many tokens beside, spread like the tokens that are computed."""
        total = float((self.steps * self.tokens).sum())
        return replace(self, samples=self.samples + self.tokens * (tokens / total)) if tokens and total else self

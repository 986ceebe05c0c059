"""A sample as a draft model has it: its tokens, those proposed behind them, and how far their KV is there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from umbel.spec.base import DrawRule

TokenIds = NDArray[np.int32]


@dataclass(slots=True, eq=False)
class DraftText:
    """`size` tokens that count and `ahead` that were proposed behind them, in `tokens`; `pages` hold the KV of the
    first `held`. `keys` name the full pages of the prompt, and `rule` is how the sample draws."""

    tokens: TokenIds
    size: int
    keys: list[bytes]
    rule: DrawRule
    pages: list[int] = field(default_factory=list)
    held: int = 0
    ahead: int = 0

    @classmethod
    def of(cls, prompt: TokenIds, keys: list[bytes]) -> DraftText:
        """A sample without tokens of its own."""
        tokens = np.empty(len(prompt) + 64, np.int32)
        tokens[: len(prompt)] = prompt
        return cls(tokens, len(prompt), keys, DrawRule())

    def extend(self, more: TokenIds) -> None:
        """Tokens that count came: the KV of those that were proposed stays as far as they are the same."""
        proposed = self.tokens[self.size : self.size + self.ahead]
        both = min(len(proposed), len(more))
        differ = np.flatnonzero(proposed[:both] != more[:both])
        same = differ.item(0) if len(differ) else both
        self.held, self.ahead = min(self.held, self.size + same), 0
        self._write(more)
        self.size += len(more)

    def propose(self, token: int) -> None:
        """One token more is proposed, behind those that are."""
        self._write(np.array([token], np.int32))
        self.ahead += 1

    def rewind(self) -> None:
        """Nothing is proposed, and the last token that counts is to be computed, as its logits are wanted."""
        self.held, self.ahead = min(self.held, self.size - 1), 0

    @property
    def lacking(self) -> int:
        """Tokens whose KV is not there."""
        return self.size + self.ahead - self.held

    def _write(self, more: TokenIds) -> None:
        end = self.size + self.ahead + len(more)
        if end > len(self.tokens):
            self.tokens = np.append(self.tokens, np.empty(max(end, len(self.tokens)), np.int32))
        self.tokens[end - len(more) : end] = more

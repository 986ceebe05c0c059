"""Blocks of KV that are kept for later jobs: which tokens a block is of, and what is known of those that are kept."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int32]

BLOCK = 128
"""Tokens of a block: cells of the grid of positions, whichever nodes hold them."""


def each_name(tokens: TokenIds, size: int) -> Iterator[str]:
    """The name of each whole block: a digest of its tokens and the name before it."""
    name = ""
    for begin in range(0, len(tokens) - size + 1, size):
        name = blake2b(name.encode() + tokens[begin : begin + size].tobytes(), digest_size=16).hexdigest()
        yield name


def names_of(tokens: TokenIds, size: int) -> list[str]:
    """All of these names."""
    return list(each_name(tokens, size))


@dataclass(frozen=True, slots=True)
class StoredKV:
    """The names of the blocks that are kept, and the seconds in which jobs read one; None where none did."""

    names: Container[str]
    block_seconds: float | None = None

    def beginning(self, tokens: TokenIds) -> int:
        """Tokens of a prompt from its first one on whose blocks are all kept."""
        found = 0
        for name in each_name(tokens, BLOCK):
            if name not in self.names:
                break
            found += BLOCK
        return found

"""Pages of KV that texts take and give back; a full one is found again by the tokens in it and all before them.

Automatic prefix caching, as in PagedAttention (arXiv 2309.06180): the prompts of a job begin alike, and what the first
of them has computed is there for the others.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int32]


class SharedPages:
    """`n_pages` pages of `size` tokens. A page that no text holds keeps its tokens until it is wanted for others."""

    def __init__(self, n_pages: int, size: int):
        self.size = size
        self._free = list(range(n_pages))[::-1]
        self._readers = [0] * n_pages
        self._key_of: dict[int, bytes] = {}
        self._page_of: dict[bytes, int] = {}
        self._idle: dict[int, None] = {}  # pages with a key that no text holds, eldest first

    def keys(self, tokens: TokenIds) -> list[bytes]:
        """What names each full page of a text: a digest of its tokens and of all before them."""
        keys, above = list[bytes](), b""
        for begin in range(0, len(tokens) - self.size + 1, self.size):
            above = blake2b(above + tokens[begin : begin + self.size].tobytes(), digest_size=16).digest()
            keys.append(above)
        return keys

    def find(self, keys: list[bytes]) -> list[int]:
        """Take the pages that hold the beginning of a text, as far as they are there."""
        found = []
        for key in keys:
            page = self._page_of.get(key)
            if page is None:
                break
            self._readers[page] += 1
            self._idle.pop(page, None)
            found.append(page)
        return found

    def take(self, count: int) -> list[int] | None:
        """Take so many pages for new tokens; None where there are too few that no text holds."""
        if count > len(self._free) + len(self._idle):
            return None
        while len(self._free) < count:
            page = next(iter(self._idle))
            del self._idle[page], self._page_of[self._key_of.pop(page)]
            self._free.append(page)
        taken = [self._free.pop() for _ in range(count)]
        for page in taken:
            self._readers[page] = 1
        return taken

    def name(self, page: int, key: bytes) -> None:
        """A page that was taken holds what the key names, so that other texts find it."""
        if key not in self._page_of and page not in self._key_of:
            self._page_of[key], self._key_of[page] = page, key

    def give(self, pages: list[int]) -> None:
        """A text does not need these pages any more; those it began with go last."""
        for page in reversed(pages):
            self._readers[page] -= 1
            if self._readers[page] == 0 and page in self._key_of:
                self._idle[page] = None
            elif self._readers[page] == 0:
                self._free.append(page)

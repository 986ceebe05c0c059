"""Finds custom ids that were given before, in about 24 bytes a row."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_DIGEST_BYTES = 16
_RECENT = 65_536


class IdIndex:
    """Remembers ids by 128-bit digest with the line they stood on: the latest in a dict, older ones in sorted runs."""

    def __init__(self) -> None:
        self._recent: dict[bytes, int] = {}
        self._runs: list[tuple[NDArray[np.bytes_], NDArray[np.int64]]] = []

    def add(self, ids: Sequence[str], lines: Sequence[int]) -> dict[int, int]:
        """Remember `ids`, found on `lines`; returns, for each that was there before, its index and the earlier line."""
        digests = [blake2b(name.encode(), digest_size=_DIGEST_BYTES).digest() for name in ids]
        seen = self._in_runs(digests)
        for i, digest in enumerate(digests):
            first = self._recent.setdefault(digest, lines[i]) if i not in seen else lines[i]
            if first != lines[i]:
                seen[i] = first
        if len(self._recent) >= _RECENT:
            self._flush()
        return seen

    def _in_runs(self, digests: list[bytes]) -> dict[int, int]:
        seen: dict[int, int] = {}
        wanted = np.frombuffer(b"".join(digests), f"S{_DIGEST_BYTES}")
        for keys, lines in self._runs if len(wanted) else ():
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            for i in np.flatnonzero(keys[at] == wanted):
                seen[int(i)] = int(lines[at[i]])
        return seen

    def _flush(self) -> None:
        keys = np.frombuffer(b"".join(self._recent), f"S{_DIGEST_BYTES}")
        lines = np.fromiter(self._recent.values(), np.int64, len(self._recent))
        self._recent = {}
        while self._runs and len(self._runs[-1][0]) <= len(keys):  # so that there are few runs, each merged few times
            older, older_lines = self._runs.pop()
            keys, lines = np.concatenate([older, keys]), np.concatenate([older_lines, lines])
        order = np.argsort(keys, kind="stable")
        self._runs.append((keys[order], lines[order]))

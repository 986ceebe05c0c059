"""Finds beginnings of arriving prompts in what the KV tree holds or plans: prompts and answers, under way or kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.cache.run_index import Found
from umbel.cache.tree import KVTree

TokenIds = NDArray[np.int32]
Key = tuple[int, int, int]  # the run above, the scope of a root, the first token


class PrefixIndex:
    """The shared runs of a tree by the run above and their first token (a radix tree: SGLang, arXiv 2312.07104).

    It costs a dictionary entry per run, so that it is made for engines whose rows arrive, and not for a batch.
    """

    def __init__(self, tree: KVTree):
        self._tree = tree
        self._below: dict[Key, list[int]] = {}
        self._key: dict[int, Key] = {}
        for node in np.flatnonzero((tree.labels.low >= 0) & (tree.slot < 0)).tolist():
            self.add(node)

    def add(self, node: int) -> None:
        """A run is in the tree."""
        tree = self._tree
        up = tree.parent.item(node)
        key = up, tree.scope.item(node) if up < 0 else 0, int(tree.tokens.of(node, 0, 1)[0])
        self._below.setdefault(key, []).append(node)
        self._key[node] = key

    def drop(self, node: int) -> None:
        """A run is gone."""
        key = self._key.pop(node, None)
        if key is not None:
            self._below[key].remove(node)
            if not self._below[key]:
                del self._below[key]

    def find(self, tokens: TokenIds, node: int = -1, scope: int = 0) -> Found:
        """The longest beginning of `tokens` below the end of `node` (-1: of prompts of a `scope`)."""
        done, matched = 0, 0 if node < 0 else self._tree.length.item(node)
        while done < len(tokens):
            shared, child = self._best((node, scope if node < 0 else 0, int(tokens[done])), tokens[done:])
            if child < 0:
                break
            node, matched, done = child, shared, done + shared
            if shared < self._tree.length.item(child):
                break
        return Found(node, matched, done)

    def _best(self, key: Key, tokens: TokenIds) -> tuple[int, int]:
        """How much of `tokens` the run of a `key` has that shares most, and which that is; -1 if none shares the
        first token. Of equal ones, a run that is shared to its end goes first, as the search goes on below it."""
        best = 0, False, -1
        for child in self._below.get(key, ()):
            shared = self._shared(child, tokens)
            best = max(best, (shared, shared == self._tree.length.item(child), child))
        return best[0], best[2]

    def _shared(self, node: int, tokens: TokenIds) -> int:
        size = min(self._tree.length.item(node), len(tokens))
        differ = np.flatnonzero(self._tree.tokens.of(node, 0, size) != tokens[:size])
        return int(differ[0]) if len(differ) else size

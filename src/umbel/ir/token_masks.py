"""Sets of tokens as bits: token t is in a mask where bit t % 32 of its word t // 32 is set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Masks = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class DrawMasks:
    """What the draws of a step may give: `mask` (`[draws]`) is each draw's row of `masks` (`[masks, words]`), -1 where
    any token may be drawn. `filled` waits until `masks` is there, where another thread fills it; None: it is."""

    mask: Ints
    masks: Masks
    filled: Callable[[], object] | None = None

    def both(self, other: DrawMasks) -> DrawMasks:
        """Masks of the tokens that these and the `other` masks allow; waits until both are there."""
        for part in (self, other):
            if part.filled is not None:
                part.filled()
        pairs = np.stack([self.mask, other.mask])
        used, kind = np.unique(pairs[:, (pairs >= 0).any(0)], axis=1, return_inverse=True)
        any_token = np.full_like(self.masks[:1], -1 % 2**32)
        ours, theirs = np.concatenate([self.masks, any_token]), np.concatenate([other.masks, any_token])
        mask = np.full_like(self.mask, -1)
        mask[(pairs >= 0).any(0)] = kind.ravel()
        return DrawMasks(mask, ours[used[0]] & theirs[used[1]])


def n_words(vocab_size: int) -> int:
    """Words of a mask over so many tokens."""
    return -(-vocab_size // 32)


def all_but(ids: Iterable[int], vocab_size: int) -> Masks:
    """The mask (`[words]`) of every token of the vocabulary except `ids`; ids beyond the vocabulary do not matter."""
    return _packed(ids, vocab_size, among=False)


def none_but(ids: Iterable[int], vocab_size: int) -> Masks:
    """The mask (`[words]`) of `ids` alone; ids beyond the vocabulary do not matter."""
    return _packed(ids, vocab_size, among=True)


def _packed(ids: Iterable[int], vocab_size: int, *, among: bool) -> Masks:
    allowed = np.zeros(32 * n_words(vocab_size), bool)
    allowed[:vocab_size] = not among
    allowed[[i for i in ids if i < vocab_size]] = among
    return np.packbits(allowed, bitorder="little").view("<u4").astype(np.uint32, copy=False)


def unpacked(masks: Masks, vocab_size: int) -> NDArray[np.bool_]:
    """For each mask and token whether the token is in it (`[..., vocab]`)."""
    words = np.ascontiguousarray(masks, "<u4")
    return np.unpackbits(words.view(np.uint8), axis=-1, count=vocab_size, bitorder="little").view(bool)

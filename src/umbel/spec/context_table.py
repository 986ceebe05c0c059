"""A hash table of contexts in arrays: the keys of a whole step are looked up at once, in 9 bytes an entry.

Every key has two buckets of eight entries and goes into the emptier one (Azar, Broder, Karlin, Upfal 1994), so that a
table is well filled before a key finds both of its buckets full. Such a key is left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Flags = NDArray[np.bool_]

KEY_BITS = 40  # of a hash: one pair among a million contexts is mistaken for each other
PLACE_BITS = 24  # of a place, so that a table serves at most 16 million
WAYS = 8  # entries of a bucket
FULL, GROWTH = 0.78, 1.25  # share of the entries in use at which a table grows, and how many times

_SHIFT, _HALF, _PLACE = np.uint64(PLACE_BITS), np.uint64(32), np.uint64((1 << PLACE_BITS) - 1)
_MIXES = np.array([0x9E3779B97F4A7C15, 0xD1B54A32D192ED03], np.uint64)
_TRIES = 4


def keys_of(hashes: Words) -> Words:
    """The keys that 64 well mixed bits give; none is 0, which stands for no entry."""
    return hashes >> np.uint64(64 - KEY_BITS) | np.uint64(1)


class ContextTable:
    """Entries with a place each and two small counts in a byte of `votes`. Numbers of entries hold until `make_room`.

    `size` counts the entries in use, `left_out` the keys that found none.
    """

    def __init__(self, buckets: int = 64):
        self.size = self.left_out = 0
        self._make(buckets)

    def _make(self, buckets: int) -> None:
        self.words = np.zeros((buckets, WAYS), np.uint64)  # key and place; no key is 0
        self.votes = np.zeros(buckets * WAYS, np.uint8)

    @property
    def n_bytes(self) -> int:
        """Memory held."""
        return self.words.nbytes + self.votes.nbytes

    def find(self, keys: Words) -> Ints:
        """The entry of each key, -1 of one that is not there (any shape)."""
        homes = _homes(keys, len(self.words))
        words = self.words[homes].reshape(-1, 2 * WAYS)
        way = (words >> _SHIFT == keys.reshape(-1, 1)).argmax(1)
        entries = homes.reshape(-1)[2 * np.arange(len(way)) + way // WAYS] * WAYS + way % WAYS
        same = self.words.reshape(-1)[entries] >> _SHIFT == keys.reshape(-1)
        return np.where(same, entries, -1).reshape(keys.shape)

    def find_or_insert(self, keys: Words, places: Ints, wanted: Flags | None = None) -> tuple[Ints, Flags]:
        """The entries of keys (`[keys]`), new ones with their places, and which are the first of a new entry: -1 where
        one is left out, or is not there and not `wanted` (None: all are). There must be room."""
        entries = self.find(keys)
        first = np.zeros(len(keys), bool)
        absent = np.flatnonzero(entries < 0 if wanted is None else wanted & (entries < 0))
        if len(absent):
            new, at, which = np.unique(keys[absent], return_index=True, return_inverse=True)
            found = self._insert(new << _SHIFT | places[absent[at]].view(np.uint64))
            entries[absent] = found[which]
            first[absent[at]] = True
        return entries, first

    def make_room(self, more: int) -> None:
        """Make room for so many entries. All get other numbers if need be."""
        if self.size + more <= FULL * self.words.size:
            return
        words, votes = self.words.ravel(), self.votes
        self._make(int(max(len(self.words) * GROWTH, (self.size + more) / FULL / WAYS)) + 1)
        taken = np.flatnonzero(words)
        self.size, each = 0, len(self.words)  # so many at a time: they see how full buckets are
        for some in (taken[begin : begin + each] for begin in range(0, len(taken), each)):
            found = self._insert(words[some])
            self.votes[found[found >= 0]] = votes[some[found >= 0]]

    def place_of(self, entries: Ints) -> Ints:
        """The place of each entry."""
        return (self.words.reshape(-1)[entries] & _PLACE).view(np.int64)

    def move(self, entries: Ints, places: Ints) -> None:
        """Give entries other places; of one that is named several times, the last counts."""
        words = self.words.reshape(-1)
        words[entries] = words[entries] & ~_PLACE | places.view(np.uint64)

    def forget(self, before: int) -> None:
        """Entries of places below `before` go, and the others count from there."""
        taken = np.flatnonzero(self.words)
        places = self.place_of(taken)
        gone = taken[places < before]
        self.words.reshape(-1)[gone] = 0
        self.votes[gone] = 0
        self.move(taken[places >= before], places[places >= before] - before)
        self.size = len(taken) - len(gone)

    def _insert(self, words: Words) -> Ints:
        """Put words of different new keys into the emptier of their buckets; returns their entries, -1 without one."""
        table, found = self.words, np.full(len(words), -1, np.int64)
        left = np.arange(len(words))
        for _ in range(_TRIES):  # those that wanted the last entries of a bucket look again
            homes = _homes(words[left] >> _SHIFT, len(table))
            room = (table[homes] == 0).sum(-1)  # [keys, 2]
            choice = room.argmax(1)[:, None]
            bucket, room = (np.take_along_axis(pair, choice, 1)[:, 0] for pair in (homes, room))
            order = np.argsort(bucket, kind="stable")
            bucket, which = bucket[order], left[order]
            turn = np.arange(len(left)) - np.searchsorted(bucket, bucket)
            fits = turn < room[order]
            at, turn = bucket[fits], turn[fits]
            empty = np.argsort(table[at] != 0, axis=1, kind="stable")  # ways, the free ones first
            found[which[fits]] = entries = at * WAYS + empty[np.arange(len(at)), turn]
            table.reshape(-1)[entries] = words[which[fits]]
            left = which[~fits]
            if not len(left):
                break
        self.size += len(words) - len(left)
        self.left_out += len(left)
        return found


def _homes(keys: Words, buckets: int) -> Ints:
    """The two buckets of each key (`[..., 2]`)."""
    pair = keys[..., None] * _MIXES
    pair >>= _HALF
    pair *= np.uint64(buckets)
    pair >>= _HALF
    return pair.view(np.int64)

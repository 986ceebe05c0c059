"""The pool of KV pages: hands out page numbers, side by side where it can, and takes them back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_TRIES = 8
_FEW = 16  # pages that are looked at one by one
_WINDOW = 256  # pages at the top that are looked at first for growing tips


class PagePool:
    """`n_pages` pages of `page_size` tokens; knows which are free, not who holds the others. `has_states`: pages hold a
    state beside keys and values, that at the last of their tokens.

    Runs are taken from pages that were in use before while gaps are found among them: memory that is touched for the
    first time has to be got from the system, which takes longer than to read it.
    """

    def __init__(self, n_pages: int, page_size: int, *, has_states: bool = False):
        self.n_pages = n_pages
        self.page_size = page_size
        self.has_states = has_states
        self._is_free = np.ones(n_pages, bool)
        self.free = n_pages
        self._next = 0  # where the last run ended
        self._edge = 0  # pages from here on were never part of a run
        self._holes = 0  # free pages below the edge

    @property
    def used(self) -> int:
        """Pages that are handed out."""
        return self.n_pages - self.free

    def pages_for(self, n_tokens: int) -> int:
        """Pages that `n_tokens` tokens of one node need."""
        return -(-n_tokens // self.page_size)

    def still_held(self, held: Ints, lengths: Ints) -> Ints:
        """Tokens of nodes that are computed, of `held`, once all behind the first `lengths` are dropped. A state cannot
        go back: what is left of a page whose last tokens are dropped is computed again."""
        whole = lengths - lengths % self.page_size if self.has_states else lengths
        return np.where(held > lengths, whole, held)

    def take_run(self, count: int) -> Ints:
        """Hand out `count` pages for one node: side by side if a gap is wide enough, else whichever are free."""
        self._demand(count)
        first = self._near_gap(count)
        pages = self._any_gap(count) if first is None else np.arange(first, first + count)
        self._next = int(pages[-1]) + 1 if count else self._next
        if self._next > self._edge:
            self._holes += int(self._is_free[self._edge : self._next].sum())
            self._edge = self._next
        return self._hand_out(pages)

    def take_singles(self, count: int) -> Ints:
        """Hand out `count` pages for `count` growing tips; from the top, so that runs find gaps at the bottom."""
        self._demand(count)
        width = _WINDOW
        while True:
            low = max(self.n_pages - width, 0)
            found = np.flatnonzero(self._is_free[low:])
            if len(found) >= count:
                return self._hand_out(found[len(found) - count :] + low)
            width *= 4

    def give(self, pages: Ints) -> None:
        """Take pages back; raises ValueError if one is free already (it would be handed out twice)."""
        if np.count_nonzero(self._is_free[pages]) or (len(pages) > 1 and len(set(pages.tolist())) != len(pages)):
            raise ValueError(f"pages given back twice: {sorted(int(p) for p in pages)}")
        self._is_free[pages] = True
        self.free += len(pages)
        self._holes += self._below_edge(pages)

    def _below_edge(self, pages: Ints) -> int:
        """How many of some pages were part of a run before; a few are counted faster one by one."""
        if len(pages) > _FEW:
            return int((pages < self._edge).sum())
        return sum(page < self._edge for page in pages.tolist())

    def _near_gap(self, count: int) -> int | None:
        """A gap below the edge found in a few tries from where the last run ended, else the pages at the edge: constant
        time, for most calls."""
        at = self._next if self._next + count <= self._edge else 0
        for _ in range(_TRIES if self._holes >= count else 0):
            taken = np.flatnonzero(~self._is_free[at : at + count])
            if len(taken) == 0:
                return at
            at += int(taken[-1]) + 1
            at = at if at + count <= self._edge else 0
        at = self._edge
        return at if at + count <= self.n_pages and self._is_free[at : at + count].all() else None

    def _any_gap(self, count: int) -> Ints:
        """The lowest gap of `count` pages, or the lowest free pages when there is no such gap."""
        free = np.flatnonzero(self._is_free)
        # In sorted free pages, entry i starts a gap of `count` when entry i + count - 1 is just count - 1 further on.
        starts = np.flatnonzero(free[count - 1 :] - free[: len(free) - count + 1] == count - 1)
        first = int(starts[0]) if len(starts) else 0
        return free[first : first + count]

    def _hand_out(self, pages: Ints) -> Ints:
        self._is_free[pages] = False
        self.free -= len(pages)
        self._holes -= self._below_edge(pages)
        return pages

    def _demand(self, count: int) -> None:
        if count > self.free:
            raise ValueError(f"{count} pages asked, {self.free} free: the caller must make room first")

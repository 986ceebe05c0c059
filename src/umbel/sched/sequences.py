"""The sequences that have started, as arrays: one slot per sample of a row, reused when it is done."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from umbel.ir.sampled import Drawing, Ended, Finish

Ints = NDArray[np.int64]

Whole = TypeVar("Whole", np.int32, np.int64)

_COLUMNS = ("rank", "row", "sample", "leaf", "prompt_len", "n_out", "held", "n_pages", "max_out", "losses")


class Sequences:
    """Slots of started samples.

    Per slot: `rank` (place in the plan's order, -1 = free slot), `row`, `sample`, `leaf` (prompt node), `prompt_len`,
    `n_out` (tokens generated), `held` (generated tokens whose KV its tail holds), `n_pages` (pages of the tail),
    `max_out` (tokens it may generate), `losses` (times it was preempted), `running` (False while preempted), `primed`
    (its prompt's KV is complete and its first token is drawn, so it can decode). `page_changes` counts how often a tail
    got pages or lost them.
    """

    rank: Ints
    row: Ints
    sample: Ints
    leaf: Ints
    prompt_len: Ints
    n_out: Ints
    held: Ints
    n_pages: Ints
    max_out: Ints
    losses: Ints

    def __init__(self, page_size: int, capacity: int = 64):
        self.page_size = page_size
        for name in _COLUMNS:
            setattr(self, name, np.full(capacity, -1, np.int64))
        self.running = np.zeros(capacity, bool)
        self.primed = np.zeros(capacity, bool)
        self.out = np.zeros((capacity, 16), np.int32)
        self.pages = np.zeros((capacity, 4), np.int64)
        self.slot_of: dict[int, int] = {}  # rank -> slot
        self.page_changes = 0
        self._runners: Ints | None = None  # as `runners` gave them last; None once that is out of date
        self._free = list(range(capacity))[::-1]

    def start(self, rank: int, row: int, sample: int, leaf: int, prompt_len: int, max_out: int) -> int:
        """Take a slot for a sample that starts now; returns it."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self.rank[slot], self.row[slot], self.sample[slot], self.leaf[slot] = rank, row, sample, leaf
        self.prompt_len[slot], self.max_out[slot] = prompt_len, max_out
        self.n_out[slot] = self.held[slot] = self.n_pages[slot] = self.losses[slot] = 0
        self.primed[slot] = False
        self.slot_of[rank] = slot
        self.resume(slot)
        return slot

    def resume(self, slot: int) -> None:
        """The sample runs, for the first time or again."""
        self.running[slot] = True
        self._runners = None

    def pause(self, slot: int) -> None:
        """The sample was preempted: it has to be primed anew."""
        self.running[slot] = False
        self.primed[slot] = False
        self.losses[slot] += 1
        self._runners = None

    def end(self, slot: int) -> None:
        """Free the slot; its pages have been given back by the caller."""
        del self.slot_of[int(self.rank[slot])]
        self.rank[slot] = -1
        self.running[slot] = False
        self._runners = None
        self._free.append(slot)

    def runners(self) -> Ints:
        """Running slots in plan order."""
        if self._runners is None:
            slots = np.flatnonzero(self.running)
            self._runners = slots[np.argsort(self.rank[slots])]
        return self._runners

    def append(self, slots: Ints, tokens: Ints) -> None:
        """Record one new token for each of `slots` (each slot at most once)."""
        self.out = _widen(self.out, int(self.n_out[slots].max(initial=0)) + 1)
        self.out[slots, self.n_out[slots]] = tokens
        self.n_out[slots] += 1

    def ended(self, slot: int, count: int, finish: Finish) -> Ended:
        """The sample in a slot, with the first `count` tokens of its answer."""
        token_ids, row, sample = tuple(self.out[slot, :count].tolist()), self.row.item(slot), self.sample.item(slot)
        return Ended(row, sample, token_ids, finish.reason, finish.stop, finish.text, finish.logprobs)

    def settle(self, drawing: Drawing, tokens: Ints, keep: Ints) -> None:
        """The tokens of the draws are known (`[draws]`), of which the first `keep` of each sample count (`[samples]`):
        they take the places of placeholders, and what is beyond them goes."""
        if drawing.single and keep.all():
            self.out[drawing.slots, drawing.before] = tokens
            return
        self.out = _widen(self.out, int(drawing.places.max(initial=-1)) + 1)
        self.out[drawing.slots[drawing.owner], drawing.places] = tokens
        changed = np.flatnonzero((keep != 1) | (drawing.counts != 1))
        slots, left = drawing.slots[changed], drawing.before[changed] + keep[changed]
        self.n_out[slots] = left
        self.held[slots] = np.clip(self.held[slots], 0, left - 1)  # the last one is fed for the logits of the next
        self.primed[slots[left == 0]] = False

    def pages_short(self, slots: Ints, more: Ints) -> Ints:
        """Pages that each slot lacks to hold `more` further tokens in its tail."""
        held = self.held[slots] + more
        short: Ints = np.maximum(-(-held // self.page_size) - self.n_pages[slots], 0)
        return short

    def add_pages(self, slots: Ints, counts: Ints, pages: Ints) -> None:
        """Give `counts[i]` more pages to `slots[i]`, from the flat list `pages`."""
        if len(pages) == 0:
            return
        self.page_changes += 1
        self.pages = _widen(self.pages, int((self.n_pages[slots] + counts).max(initial=0)))
        owner = np.repeat(slots, counts)
        within = np.arange(len(pages)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.pages[owner, self.n_pages[owner] + within] = pages
        self.n_pages[slots] += counts

    def take_pages(self, slot: int) -> Ints:
        """Strip the slot of its tail: returns its pages; nothing of the tail is held any more."""
        pages = self.pages[slot, : self.n_pages[slot]].copy()
        self.page_changes += 1
        self.n_pages[slot] = 0
        self.held[slot] = 0
        return pages

    def _grow(self) -> None:
        old = len(self.rank)
        for name in (*_COLUMNS, "running", "primed", "out", "pages"):
            column = getattr(self, name)
            more = np.zeros_like(column) if column.dtype == bool or column.ndim > 1 else np.full_like(column, -1)
            setattr(self, name, np.concatenate([column, more]))
        self._free = list(range(old, 2 * old))[::-1]


def _widen(table: NDArray[Whole], width: int) -> NDArray[Whole]:
    """The table with at least `width` columns (doubling, so that growth stays linear)."""
    if width <= table.shape[1]:
        return table
    wider = np.zeros((table.shape[0], max(width, 2 * table.shape[1])), table.dtype)
    wider[:, : table.shape[1]] = table
    return wider

"""The sequences that have started, as arrays: one slot per sample of a row, reused when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from umbel.ir.columns import Columns, lengthen, runs
from umbel.ir.sampled import Drawing, Ended, Finish

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Sequences(Columns):
    """Slots of started samples.

    Per slot: `rank` (place in the plan's order, -1 = free slot), `row`, `sample`, `tip` (the node it grows in the KV
    tree), `prompt_len`, `n_out` (tokens generated, which stand in `out`), `max_out` (tokens it may generate), `losses`
    (times it was preempted), `running` (False while preempted), `primed` (the KV above its tip is complete and its tip
    has a token, so it can decode), `awaits` (its next tokens are not scheduled before its last ones are known).
    """

    _FILLS: ClassVar[dict[str, float]] = {
        **dict.fromkeys(("rank", "row", "sample", "tip", "prompt_len", "n_out", "max_out", "losses"), -1),
        **dict.fromkeys(("running", "primed", "awaits"), False),
    }
    rank: Ints
    row: Ints
    sample: Ints
    tip: Ints
    prompt_len: Ints
    n_out: Ints
    max_out: Ints
    losses: Ints
    running: Flags
    primed: Flags
    awaits: Flags

    def __init__(self, capacity: int = 64):
        super().__init__(capacity)
        self.out = np.zeros((capacity, 16), np.int32)
        self.slot_of: dict[int, int] = {}  # rank -> slot
        self.n_running = 0
        self._runners: Ints | None = None  # as `runners` gave them last; None once that is out of date
        self._free = list(range(capacity))[::-1]

    def start(self, rank: int, row: int, sample: int, prompt_len: int, max_out: int) -> int:
        """Take a slot for a sample; returns it. It does not run yet, and the caller gives it a tip."""
        if not self._free:
            self._free = list(range(self.capacity, 2 * self.capacity))[::-1]
            self.reserve(2 * self.capacity)
        slot = self._free.pop()
        self.rank[slot], self.row[slot], self.sample[slot] = rank, row, sample
        self.prompt_len[slot], self.max_out[slot] = prompt_len, max_out
        self.n_out[slot] = self.losses[slot] = 0
        self.primed[slot] = self.awaits[slot] = False
        self.slot_of[rank] = slot
        return slot

    def resume(self, slot: int) -> None:
        """The sample runs, for the first time or again."""
        self.running[slot] = True
        self.n_running += 1
        self._runners = None

    def pause(self, slot: int) -> None:
        """The sample was preempted: what it held has to be computed again before it can decode."""
        self.running[slot] = self.primed[slot] = False
        self.n_running -= 1
        self.losses[slot] += 1
        self._runners = None

    def end(self, slot: int) -> None:
        """Free the slot; what its tip held has been given back by the caller."""
        del self.slot_of[int(self.rank[slot])]
        self.rank[slot] = -1
        self.n_running -= int(self.running[slot])
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
        self._widen(int(self.n_out[slots].max(initial=0)) + 1)
        self.out[slots, self.n_out[slots]] = tokens
        self.n_out[slots] += 1

    def propose(self, slots: Ints, counts: Ints, tokens: Ints) -> None:
        """Put `counts[i]` of `tokens` behind those that the sample in `slots[i]` has, as if they had been drawn."""
        at = runs(self.n_out[slots], counts)
        self._widen(int(at.max(initial=-1)) + 1)
        self.out[np.repeat(slots, counts), at] = tokens
        self.n_out[slots] += counts

    def give(self, slot: int, tokens: Sequence[int] | NDArray[np.int32]) -> None:
        """Put tokens behind those that a sample has."""
        n_out = self.n_out.item(slot)
        self._widen(n_out + len(tokens))
        self.out[slot, n_out : n_out + len(tokens)] = tokens
        self.n_out[slot] += len(tokens)

    def ended(self, slot: int, count: int, finish: Finish) -> Ended:
        """The sample in a slot, with the first `count` tokens of its answer."""
        token_ids, row, sample = tuple(self.out[slot, :count].tolist()), self.row.item(slot), self.sample.item(slot)
        said = finish.reason, finish.stop, finish.text, finish.logprobs, finish.vector
        return Ended(row, sample, token_ids, *said)

    def settle(self, drawing: Drawing, tokens: Ints, keep: Ints) -> Ints:
        """The tokens of the draws are known (`[draws]`), of which the first `keep` of each sample count (`[samples]`):
        they take the places of placeholders and of what was proposed, and what is beyond them goes. Returns the slots
        that have fewer tokens now."""
        if drawing.single and keep.all():
            self.out[drawing.slots, drawing.before] = tokens
            return drawing.slots[:0]
        self.out[drawing.slots[drawing.owner], drawing.places] = tokens
        changed = np.flatnonzero(keep < drawing.counts)
        slots, left = drawing.slots[changed], drawing.before[changed] + keep[changed]
        self.n_out[slots] = left
        self.primed[slots[left == 0]] = False
        return slots

    def reserve(self, size: int) -> None:
        """Make room for at least `size` slots."""
        super().reserve(size)
        self.out = lengthen(self.out, self.capacity)

    def _widen(self, width: int) -> None:
        """Make room for `width` tokens of each slot, doubling so that growth stays linear."""
        if width > self.out.shape[1]:
            more = max(width, 2 * self.out.shape[1]) - self.out.shape[1]
            self.out = np.pad(self.out, ((0, 0), (0, more)))

"""Steers rows of a loop while they run: forks them, puts tokens behind theirs, takes them out and in again.

Draws are keyed by a row's stream, the number of the sample and the position (ir.randomness): a fork draws under a
sample number of its own, and what is taken up again, here or elsewhere, goes on with the draws it would have had.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from umbel.engine.watch.watchers import Watchers
from umbel.errors import UsageError
from umbel.ir.request import Completion
from umbel.ir.resumable import OpenSample, Resumable
from umbel.ir.workload import ADAPTER, Workload
from umbel.plan.draft import flat_forest
from umbel.sched import steering
from umbel.sched.lot import Defaults, Lot, Standing
from umbel.sched.scheduler import Scheduler

Ints = NDArray[np.int64]
TokenIds = NDArray[np.int32]


class Steering:
    """The rows of one scheduler, between two steps."""

    def __init__(self, scheduler: Scheduler, watchers: Watchers, defaults: Defaults):
        self.scheduler = scheduler
        self.watchers = watchers
        self.defaults = defaults
        self._root: dict[int, int] = {}  # of a forked row, the row that it came from first
        self._next_sample: dict[int, int] = {}  # per root that was forked, the first number that no fork has

    def fork(self, row: int, sample: int, keys: Sequence[int], *, streamed: bool = False) -> list[int]:
        """Add a row for each of `keys` (its number in the input) that goes on from where the sample is, with a sample
        number of its own; nothing is computed again for it. Raises UsageError for a sample that has ended, or whose
        row wants no answer."""
        rank, requests = self._growing(row, sample), self.scheduler.requests
        rows = list(range(len(requests), len(requests) + len(keys)))
        requests.repeat(row, keys, self._numbers(row, len(keys)), streamed=streamed)
        self.scheduler.kv.scored.share(row, rows)
        self._root.update(dict.fromkeys(rows, self._root.get(row, row)))
        self.watchers.fork(rank, row, steering.fork(self.scheduler.books, rank, rows), self._answer(rank))
        return rows

    def append(self, row: int, sample: int, tokens: Sequence[int]) -> None:
        """Put tokens behind those that the sample has, as part of its answer; they count beside its `max_tokens`.
        Raises UsageError where that leaves no room in the context for a further one, or no answer is wanted."""
        rank, requests = self._growing(row, sample), self.scheduler.requests
        slot, n_out = self.scheduler.seqs.slot_of.get(rank), len(self.tokens_of(rank))
        limit = requests.limit.item(row) if slot is None else self.scheduler.seqs.max_out.item(slot)
        room = self.defaults.context - requests.prompt_len(row)
        if n_out + len(tokens) >= room:
            there = f"{requests.prompt_len(row) + n_out:,} tokens"
            raise UsageError(
                f"{len(tokens):,} tokens behind {there} leave no room for another in the model's context of "
                f"{self.defaults.context:,}: append fewer"
            )
        steering.give(self.scheduler.books, rank, tokens, min(limit + len(tokens), room))
        self.watchers.adopt(rank, row, np.array(tokens, np.int32), None)

    def record(self, row: int) -> tuple[OpenSample, ...]:
        """The samples of a row that are not finished. Raises UsageError when there are none."""
        scheduler, found = self.scheduler, list[OpenSample]()
        for rank in scheduler.waiting.ranks_of(row):
            slot = scheduler.seqs.slot_of.get(rank)
            if slot is not None or scheduler.waiting.waits(rank):
                limit = scheduler.requests.limit.item(row) if slot is None else scheduler.seqs.max_out.item(slot)
                number = scheduler.waiting.samples[rank]
                found.append(OpenSample(number, self.tokens_of(rank), limit, self.watchers.collected(rank)))
        if not found:
            raise UsageError(f"row {row} has finished: there is nothing left of it to take out")
        return tuple(found)

    def resumable(self, row: int, done: tuple[Completion, ...]) -> Resumable:
        """What a row of which some samples are `done` is taken up from. Raises UsageError where all are."""
        requests, samples = self.scheduler.requests, self.record(row)
        prompt, stream = tuple(requests.prompt(row).tolist()), requests.stream.item(row)
        return Resumable(prompt, requests.params[row], stream, self.next_sample(row), samples, done, self.scope(row))

    def next_sample(self, row: int) -> int:
        """The first sample number that no fork of the row has."""
        root = self._root.get(row, row)
        return self._next_sample.get(root, self.scheduler.requests.n.item(root))

    def scope(self, row: int) -> int:
        """What the row's KV depends on beside its tokens (Workload.scope)."""
        kv = self.scheduler.kv
        return kv.scope.item(kv.path(kv.leaf.item(row))[0]) & ADAPTER

    def lot_of(self, record: Resumable, key: int, *, streamed: bool, standing: Standing | None = None) -> Lot:
        """A row that was taken out as one to add, without the tokens that it had."""
        load = Workload.of([record.prompt_token_ids], record.params, [key], scope=[record.scope])
        load = self.defaults.techniques.put_apart(self.defaults.soft.put_before(load))
        load = load if standing is None else standing.apart(load)
        numbers = [*(s.sample for s in record.open), *(c.index for c in record.finished)]
        return Lot(
            load,
            flat_forest(load),
            self.defaults.end_ids(load),
            np.array([max(s.limit for s in record.open)]),
            streamed=np.array([streamed]),
            lockstep=self.watchers.extend(load.params),
            streams=np.array([record.stream]),
            first_sample=np.array([min(numbers)]),
            means=self.defaults.means(load),
            standing=standing,
            places=self.defaults.soft.by_row(load.scope),
            whole=self.defaults.techniques.left(load.params, prompts=False),
        )

    def restore(self, row: int, record: Resumable) -> None:
        """Give a row that was added again what its samples had."""
        scheduler = self.scheduler
        self._next_sample[row] = record.next_sample
        for sample in record.open:
            rank = self.rank_of(row, sample.sample)
            if sample.token_ids or sample.limit != scheduler.requests.limit.item(row):
                steering.give(scheduler.books, rank, sample.token_ids, sample.limit)
                self.watchers.adopt(rank, row, np.array(sample.token_ids, np.int32), sample.logprobs)
        for completion in record.finished:
            steering.leave_out(scheduler.books, self.rank_of(row, completion.index))

    def rank_of(self, row: int, sample: int) -> int:
        """The rank of a sample that has not ended. Raises UsageError for another."""
        scheduler = self.scheduler
        ranks, place = scheduler.waiting.ranks_of(row), sample - scheduler.requests.first_sample.item(row)
        if not 0 <= place < len(ranks):
            raise UsageError(f"row {row} has no sample {sample}")
        if ranks[place] not in scheduler.seqs.slot_of and not scheduler.waiting.waits(ranks[place]):
            raise UsageError(f"sample {sample} of row {row} has finished: only one that is not done can be steered")
        return ranks[place]

    def tokens_of(self, rank: int) -> tuple[int, ...]:
        """The tokens that a sample has."""
        return tuple(self._answer(rank).tolist())

    def _answer(self, rank: int) -> TokenIds:
        """The tokens that a sample has, as they stand in memory until the next step."""
        seqs = self.scheduler.seqs
        slot = seqs.slot_of.get(rank)
        return seqs.out[0, :0] if slot is None else seqs.out[slot, : seqs.n_out.item(slot)]

    def _growing(self, row: int, sample: int) -> int:
        """The rank of a sample that is being answered."""
        if self.scheduler.requests.params[row].max_tokens == 0:
            raise UsageError("a vector, or scores of the prompt, are wanted: there is no answer to go on with")
        return self.rank_of(row, sample)

    def _numbers(self, row: int, count: int) -> Ints:
        first = self.next_sample(row)
        self._next_sample[self._root.get(row, row)] = first + count
        return np.arange(first, first + count)

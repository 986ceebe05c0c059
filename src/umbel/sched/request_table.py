"""All rows that a loop was given, as columns: their prompts, and how they are sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from umbel.ir.distinct import Distinct
from umbel.ir.growable import Growable
from umbel.ir.params import SamplingParams
from umbel.ir.randomness import streams
from umbel.sched.lot import Lot

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_PARAMETERS = ("temperature", "top_k", "top_p", "min_p", "stream", "logprobs", "min_tokens", "limit")
_ALIKE = (*_PARAMETERS, "has_stops", "certain", "lockstep")  # columns that a copy of a row has in common with it


class RequestTable(Growable):
    """Every row by its number, in the order in which rows were added.

    Prompts: row i is `tokens[offsets[i]:offsets[i + 1]]`. Columns (`[rows]`): the fields of its parameters that a step
    gathers (`top_k` 0 and `logprobs` -1: not asked for), `stream` (keys its draws), `first_sample` (the number of its
    first sample), `key` (its number in the input), `limit` (tokens that each of its samples may generate), `has_stops`
    (stop strings), `certain` (only `limit` can end it), `streamed` (it wants its tokens as they come), `lockstep` (its
    next tokens wait for its last ones). Lists: `params`, and `end_ids`, the tokens that end the row and are banned
    before its `min_tokens`. `any_end` are all of these, ascending; `any_lockstep`: there is a lockstep row.
    """

    tokens: NDArray[np.int32]
    offsets: Ints
    n: Ints
    temperature: Floats
    top_k: Ints
    top_p: Floats
    min_p: Floats
    stream: Ints
    first_sample: Ints
    key: Ints
    logprobs: Ints
    min_tokens: Ints
    limit: Ints
    has_stops: Flags
    certain: Flags
    streamed: Flags
    lockstep: Flags

    def __init__(self) -> None:
        super().__init__()
        self.params: list[SamplingParams] = []
        self.end_ids: list[tuple[int, ...]] = []
        self.any_end: Ints = np.zeros(0, np.int64)
        self.any_lockstep = False
        self._grow(offsets=np.zeros(1, np.int64))

    @classmethod
    def of(cls, lot: Lot) -> RequestTable:
        """A table of the rows of one lot."""
        table = cls()
        table.extend(lot)
        return table

    def __len__(self) -> int:
        return len(self.params)

    def extend(self, lot: Lot) -> None:
        """Add the rows of a lot behind those that are there."""
        load, params = lot.workload, Distinct.of(lot.workload.params)
        has_stops = params.flags(lambda p: bool(p.stop))
        ended = np.array([bool(ids) for ids in lot.end_ids], bool)
        own = params.flags(lambda p: p.seed is not None)
        seeds = params.column(lambda p: lot.seed if p.seed is None else p.seed)
        self._grow(
            tokens=load.tokens,
            offsets=load.offsets[1:] + self.offsets[-1],
            n=params.column(lambda p: p.n),
            temperature=params.floats(lambda p: p.temperature),
            top_k=params.column(lambda p: max(p.top_k, 0)),
            top_p=params.floats(lambda p: p.top_p),
            min_p=params.floats(lambda p: p.min_p),
            stream=streams(seeds, load.noise_keys, own) if lot.streams is None else lot.streams,
            first_sample=np.zeros(len(load), np.int64) if lot.first_sample is None else lot.first_sample,
            key=load.keys,
            logprobs=params.column(lambda p: -1 if p.logprobs is None else p.logprobs),
            min_tokens=params.column(lambda p: p.min_tokens),
            limit=lot.limits,
            has_stops=has_stops,
            certain=~has_stops & ~ended,
            lockstep=np.zeros(len(load), bool) if lot.lockstep is None else lot.lockstep,
            streamed=np.zeros(len(load), bool) if lot.streamed is None else lot.streamed,
        )
        self.params += load.params
        self.end_ids += lot.end_ids
        self.any_lockstep |= lot.lockstep is not None and bool(lot.lockstep.any())
        ends = {i for ids in set(lot.end_ids) for i in ids}
        if not ends <= set(self.any_end.tolist()):
            self.any_end = np.union1d(self.any_end, np.array(sorted(ends), np.int64))

    def repeat(self, row: int, keys: Sequence[int], first_sample: Ints, *, streamed: bool) -> None:
        """Add rows like one that is there, but of one sample each: a row for each of `keys`, whose sample has the
        number in `first_sample` (`[new rows]`)."""
        count, prompt, params = len(keys), self.prompt(row), self.params[row]
        alike = {name: np.repeat(getattr(self, name)[row : row + 1], count) for name in _ALIKE}
        self._grow(
            tokens=np.tile(prompt, count),
            offsets=self.offsets[-1] + len(prompt) * np.arange(1, count + 1),
            n=np.ones(count, np.int64),
            key=np.array(keys, np.int64),
            first_sample=first_sample,
            streamed=np.full(count, streamed),
            **alike,
        )
        self.params += [params if params.n == 1 else replace(params, n=1)] * count
        self.end_ids += [self.end_ids[row]] * count

    def prompt(self, row: int) -> NDArray[np.int32]:
        """The token ids of a row's prompt."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    def prompt_len(self, row: int) -> int:
        """Tokens of a row's prompt."""
        return int(self.offsets[row + 1] - self.offsets[row])

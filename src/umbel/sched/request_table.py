"""All rows that a loop was given, as columns: their prompts, and how they are sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from umbel.cache.memories import DRAWN, DRAWN_WHOLE
from umbel.ir.columns import Growable, joined
from umbel.ir.distinct import Distinct
from umbel.ir.params import SamplingParams
from umbel.ir.randomness import streams
from umbel.ir.step import Sampling
from umbel.ir.workload import WHOLE_PROMPTS
from umbel.sched.lot import Lot, Standing

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_OWN = ("n", "key", "first_sample", "streamed")  # columns in which a fork differs from its row


class RequestTable(Growable):
    """Every row by its number, in the order in which rows were added.

    Columns (`[rows]`): where its prompt begins in `tokens` and its `length`, of which `places` tokens stand for a soft
    prompt, the fields of its parameters that a step
    gathers (`top_k` 0 and `logprobs` -1: not asked for), `stream` (keys its draws), `first_sample` (the number of its
    first sample), `key` (its number in the input), `limit` (tokens that each of its samples may generate), `certain`
    (only `limit` can end it), `priority`, `tenant` and `due` (as in Standing), `streamed` (it wants its tokens as they
    come), `lockstep` (its next tokens wait for its last ones), `drawn` (how the tree
    marks what its samples draw). Lists: `params`, and `end_ids`, the tokens that end the
    row and are banned before its `min_tokens`. `any_end` are all of these, ascending; `any_lockstep`: there is a
    lockstep row, `any_whole`: one that leaves out a technique.
    """

    _FILLS: ClassVar[dict[str, float]] = {
        **dict.fromkeys(("begin", "length", "places", "n", "top_k", "stream", "first_sample", "key"), 0),
        "drawn": DRAWN,
        **dict.fromkeys(("min_tokens", "limit", "priority", "tenant"), 0),
        **dict.fromkeys(("temperature", "top_p", "min_p", "due"), 0.0),
        **dict.fromkeys(("certain", "streamed", "lockstep"), False),
        "logprobs": -1,
    }
    begin: Ints
    length: Ints
    n: Ints
    temperature: Floats
    top_k: Ints
    top_p: Floats
    min_p: Floats
    stream: Ints
    first_sample: Ints
    key: Ints
    places: Ints
    drawn: Ints
    logprobs: Ints
    min_tokens: Ints
    limit: Ints
    priority: Ints
    tenant: Ints
    due: Floats
    certain: Flags
    streamed: Flags
    lockstep: Flags

    def __init__(self) -> None:
        super().__init__()
        self.tokens = np.zeros(0, np.int32)
        self.params: list[SamplingParams] = []
        self.end_ids: list[tuple[int, ...]] = []
        self.any_end: Ints = np.zeros(0, np.int64)
        self.any_lockstep = self.any_whole = False
        self._n_tokens = 0

    def __len__(self) -> int:
        return self.used

    def extend(self, lot: Lot) -> None:
        """Add the rows of a lot behind those that are there."""
        load, params = lot.workload, Distinct.of(lot.workload.params)
        begin, self._n_tokens = self._n_tokens, self._n_tokens + len(load.tokens)
        self.tokens = joined(self.tokens, begin, load.tokens)
        ended = np.array([bool(ids) for ids in lot.end_ids], bool)
        own = params.flags(lambda p: p.seed is not None)
        seeds = params.column(lambda p: lot.seed if p.seed is None else p.seed)
        stands = lot.standing or Standing.alike(len(load))
        self._grow(
            len(load),
            priority=stands.priority,
            tenant=stands.tenant,
            due=stands.due,
            begin=begin + load.offsets[:-1],
            length=np.diff(load.offsets),
            n=params.column(lambda p: p.n),
            temperature=params.floats(lambda p: p.temperature),
            top_k=params.column(lambda p: max(p.top_k, 0)),
            top_p=params.floats(lambda p: p.top_p),
            min_p=params.floats(lambda p: p.min_p),
            stream=streams(seeds, load.noise_keys, own) if lot.streams is None else lot.streams,
            first_sample=0 if lot.first_sample is None else lot.first_sample,
            key=load.keys,
            places=0 if lot.places is None else lot.places,
            drawn=DRAWN if lot.whole is None else np.where(lot.whole, DRAWN_WHOLE, DRAWN),
            logprobs=params.column(lambda p: -1 if p.num_logprobs is None else p.num_logprobs),
            min_tokens=params.column(lambda p: p.min_tokens),
            limit=lot.limits,
            certain=~params.flags(lambda p: p.ends_early) & ~ended,
            lockstep=False if lot.lockstep is None else lot.lockstep,
            streamed=False if lot.streamed is None else lot.streamed,
        )
        self.params += load.params
        self.end_ids += lot.end_ids
        prompts = load.scope is not None and bool((load.scope & WHOLE_PROMPTS).any())
        self.any_whole |= prompts or lot.whole is not None
        self.any_lockstep |= lot.lockstep is not None and bool(lot.lockstep.any())
        ends = {i for ids in set(lot.end_ids) for i in ids}
        if not ends <= set(self.any_end.tolist()):
            self.any_end = np.union1d(self.any_end, np.array(sorted(ends), np.int64))

    def repeat(self, row: int, keys: Sequence[int], first_sample: Ints, *, streamed: bool) -> None:
        """Add rows like one that is there, but of one sample each: a row for each of `keys`, whose sample has the
        number in `first_sample` (`[new rows]`)."""
        first, count, params = self.used, len(keys), self.params[row]
        self._grow(count, n=1, key=np.array(keys), first_sample=first_sample, streamed=streamed)
        for name in self._FILLS:
            if name not in _OWN:
                column = self.__dict__[name]
                column[first : first + count] = column[row]
        self.params += [params if params.n == 1 else replace(params, n=1)] * count
        self.end_ids += [self.end_ids[row]] * count

    def draws(self, rows: Ints, samples: Ints, at: Ints, positions: Ints) -> Sampling:
        """Columns for draws of samples of these rows, behind the step's tokens `at`, of tokens at these positions."""
        return Sampling(
            at=at,
            temperature=self.temperature[rows],
            top_k=self.top_k[rows],
            top_p=self.top_p[rows],
            min_p=self.min_p[rows],
            streams=self.stream[rows],
            keys=self.key[rows],
            samples=samples,
            positions=positions,
            logprobs=self.logprobs[rows],
        )

    def prompt(self, row: int) -> NDArray[np.int32]:
        """The token ids of a row's prompt."""
        return self.fed(row)[self.places.item(row) :]

    def fed(self, row: int) -> NDArray[np.int32]:
        """What is fed of it, with the tokens that stand for a soft prompt."""
        begin = self.begin.item(row)
        return self.tokens[begin : begin + self.length.item(row)]

    def prompt_len(self, row: int) -> int:
        """Tokens that are fed of a row's prompt."""
        return self.length.item(row)

"""From rows to workloads: tokenised in bulk, checked against the model, faulty rows kept apart.

Without torch, as `umbel plan` uses it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.errors import InvalidRequest
from umbel.ir.adapter import scopes_of
from umbel.ir.branches import Branches
from umbel.ir.contain import row_error
from umbel.ir.documents import Documents, Span
from umbel.ir.limits import check_room, check_token_ids
from umbel.ir.params import SamplingParams
from umbel.ir.pooling import WRITER, Pooler
from umbel.ir.randomness import key_of
from umbel.ir.soft_prompt import NO_SOFT, SoftPrompts
from umbel.ir.workload import Workload
from umbel.jobs.read.branching import BranchEncoder, BranchReader
from umbel.jobs.read.fitting import Fitting, Skipped, asks
from umbel.jobs.read.names import RowNames
from umbel.jobs.read.records import InputRow, ReadNotes
from umbel.jobs.read.source import Source
from umbel.jobs.read.source_files import SourceFiles
from umbel.jobs.read.tokenising import tokenise


class TextEncoder(BranchEncoder, Protocol):
    """The part of a tokenizer that is used here."""

    def check_stops(self, params: SamplingParams) -> None:
        """Note stop strings. Raises InvalidRequest where there is no tokenizer to find them with, or to hold answers to
        a form with."""

    def check_bad_words(self, words: tuple[str, ...], width: int) -> None:
        """Raise InvalidRequest where there is no tokenizer to split them, or one has no tokens or some that the model,
        of vocabulary `width`, has not."""


@dataclass(frozen=True, slots=True)
class Window:
    """Rows that are run together.

    `workload`, `names`: the rows that can run, and their names.
    `faults`: the rows that cannot.
    `skipped`: the rows that are left out as they asked for.
    `open_ended`: how many rows have no `max_tokens`, so may run to the end of the context.
    `share`: of the bytes of all rows that are to run, those of this window; None where that is not known.
    """

    workload: Workload
    names: RowNames
    faults: list[InputRow]
    open_ended: int
    share: float | None = None
    skipped: Sequence[Skipped] = ()

    @property
    def runnable(self) -> int:
        """The number of rows of the input that can run."""
        return len(self.workload) - sum(branches.n_rows - 1 for branches, _ in self.names.branches.values())

    @property
    def rows(self) -> int:
        """The number of rows, those at fault and those left out included."""
        return self.runnable + len(self.faults) + len(self.skipped)


@dataclass(slots=True)
class WindowBuilder:
    """Tokenises rows for a model of vocabulary `width` and `context` positions and gathers them into a window. `bos` is
    kept where prompts are cut; `notes` counts these. `pooler`: what it gives instead of answers; `soft`: adapters."""

    tokenizer: TextEncoder
    width: int
    context: int
    check: Callable[[], None] = lambda: None  # called now and then; may raise to end the work
    bos: int | None = None
    notes: ReadNotes = field(default_factory=ReadNotes)
    pooler: Pooler = WRITER
    soft: SoftPrompts = NO_SOFT
    n_tokens: int = 0
    _tokens: list[NDArray[np.int32]] = field(default_factory=list)
    _lengths: list[NDArray[np.int64]] = field(default_factory=list)
    _params: list[SamplingParams] = field(default_factory=list)
    _keys: list[int] = field(default_factory=list)
    _draw_keys: list[int] = field(default_factory=list)
    _names: RowNames = field(default_factory=RowNames)
    _faults: list[InputRow] = field(default_factory=list)
    _checked: SamplingParams | None = None  # which were looked at last: rows share what they ask for
    _skipped: list[Skipped] = field(default_factory=list)
    _apart: dict[int, Sequence[Span]] = field(default_factory=dict)  # documents of rows that have some, by row

    @property
    def rows(self) -> int:
        """The number of rows taken so far."""
        return len(self._keys) + len(self._faults) + len(self._skipped)

    def take(self, rows: Sequence[InputRow]) -> None:
        """Append rows: those whose prompts can be run to the workload, the others to the faults."""
        self.check()
        self._faults += [row for row in rows if row.request is None]
        valid, branches = self._expanded([row for row in rows if row.request is not None])
        prompts = self._tokenised(valid)
        if asks(valid):
            valid, prompts, skipped = Fitting(self._context_of, self.bos, self.notes).fit(valid, prompts)
            self._skipped += skipped
        tokens = _flat(prompts)
        if len(tokens) and int(tokens.max()) >= self.width:  # a tokenizer with more entries than the model has rows
            prompts = [_checked(ids, self.width) for ids in prompts]
        kept: list[InputRow] = []
        lengths: list[int] = []
        for row, ids in zip(valid, prompts, strict=True):
            params = row.request.params if row.request is not None else SamplingParams()
            try:
                if isinstance(ids, InvalidRequest):
                    raise ids
                context = self._context_of(params)
                if not 0 < len(ids) < context - params.min_tokens:  # nearly all rows need no closer look
                    check_room(len(ids), params.min_tokens, context, params.max_tokens)
                if params.stop or params.structured_outputs is not None:
                    self.tokenizer.check_stops(params)
                if params is not self._checked:
                    self._check_params(params)
            except InvalidRequest as error:
                self._faults.append(row._replace(request=None, error=row_error(error)))
                continue
            kept.append(row)
            lengths.append(len(ids))
            self._params.append(params)
        if len(kept) < len(valid):
            fine = {row.row for row in kept}
            tokens = _flat([ids for row, ids in zip(valid, prompts, strict=True) if row.row in fine])
        self._names.note(branches, kept)
        self._keys += [row.row for row in kept]
        self._draw_keys += [draw_key(row) for row in kept]
        self._names.extend(kept)
        self._lengths.append(np.array(lengths, np.int64))
        self._tokens.append(tokens)
        self.n_tokens += len(tokens)

    def _tokenised(self, rows: Sequence[InputRow]) -> list[Sequence[int] | InvalidRequest]:
        """The token ids of each row, or why it has none, as far as the model reads them."""
        found, spans = tokenise(rows, self.tokenizer, self.context)
        self._apart.update(spans)
        if self.pooler.pad is None:
            return found
        return [ids if isinstance(ids, InvalidRequest) else self.pooler.read(ids) for ids in found]

    def _context_of(self, params: SamplingParams) -> int:
        return self.context if params.lora is None else self.context - self.soft.before(params)

    def _check_params(self, params: SamplingParams) -> None:
        self.soft.check(params)
        self.pooler.check(params.pooling_params)
        params.check_ids(self.width)
        if params.bad_words:
            self.tokenizer.check_bad_words(params.bad_words, self.width)
        self._checked = params

    def _expanded(self, rows: list[InputRow]) -> tuple[list[InputRow], Mapping[int, Branches]]:
        """The rows as rows of the workload, and which of them have continuations scored; faults are kept apart."""
        if all(row.request is None or row.request.branches is None for row in rows):
            return rows, {}
        context = self.context - max(self.soft.places, default=0)
        reader = BranchReader(self.tokenizer, self.width, context, self.bos)
        expanded, branches, faults = reader.expand(rows)
        self._faults += faults
        return expanded, branches

    def build(self) -> Window:
        """The window of all rows taken so far; the builder is empty again."""
        offsets = np.zeros(len(self._keys) + 1, np.int64)
        if self._keys:
            np.cumsum(np.concatenate(self._lengths), out=offsets[1:])
        tokens = np.concatenate(self._tokens) if self._tokens else np.empty(0, np.int32)
        keys, draw_keys = np.asarray(self._keys, np.int64), np.asarray(self._draw_keys, np.int64)
        scope = scopes_of(self._params, self.soft.names)
        spans = [self._apart.get(row, ()) for row in self._keys] if self._apart else ()
        documents = Documents.of(spans, offsets, tokens)
        workload = Workload(tokens, offsets, self._params, keys, draw_keys, scope, documents)
        open_ended = sum(params.max_tokens is None for params in self._params)
        window = Window(workload, self._names, self._faults, open_ended, skipped=self._skipped)
        self.n_tokens, self._names, self._skipped = 0, RowNames(), []
        self._tokens, self._lengths, self._params, self._faults = [], [], [], []
        self._keys, self._draw_keys, self._apart = [], [], {}
        return window


def draw_key(row: InputRow) -> int:
    """What keys the draws of a row without a seed of its own: its custom id where it gave one, so that rows may be
    inserted, left out and moved without a change of its answer; else its number."""
    return key_of(row.custom_id) if row.explicit_id and row.custom_id is not None else row.row


def _flat(prompts: Sequence[Sequence[int] | InvalidRequest]) -> NDArray[np.int32]:
    ids = [ids for ids in prompts if not isinstance(ids, InvalidRequest)]
    return np.fromiter(chain.from_iterable(ids), np.int32, sum(map(len, ids)))


def _checked(ids: Sequence[int] | InvalidRequest, width: int) -> Sequence[int] | InvalidRequest:
    if not isinstance(ids, InvalidRequest):
        try:
            check_token_ids(ids, width)
        except InvalidRequest as error:
            return error
    return ids


@dataclass(frozen=True, slots=True)
class Prepared:
    """A whole input of so many `rows`: `workload` of the `runnable` ones, `faults` the others, in the input's order."""

    workload: Workload
    faults: list[InputRow]
    rows: int
    runnable: int


def prepare(
    source: Source | SourceFiles,
    tokenizer: TextEncoder,
    width: int,
    context: int,
    told: Callable[[int], object] = lambda rows: None,
    bos: int | None = None,
    pooler: Pooler = WRITER,
    soft: SoftPrompts = NO_SOFT,
) -> Prepared:
    """Read and tokenise all of `source` for a model of vocabulary `width` and `context` positions; `told` is called
    with the number of rows that are read so far; `soft` are the model's adapters.

    Raises what reading raises (EmptyInput, InputError, UsageError), never for a single row.
    """
    builder = WindowBuilder(tokenizer, width, context, bos=bos, notes=source.files[0].notes, pooler=pooler, soft=soft)
    for batch in source.batches():
        builder.take(batch)
        told(builder.rows)
    built = builder.build()
    return Prepared(built.workload, sorted(built.faults, key=lambda row: row.row), built.rows, built.runnable)

"""From ended samples to rows: text in bulk, and one Output when all samples of a row are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isnan

import numpy as np
from numpy.typing import NDArray

from umbel.cache.scored_runs import ScoredRuns
from umbel.engine.row_errors import NOT_FINITE
from umbel.ir.params import SamplingParams
from umbel.ir.request import Completion, Output, RowError
from umbel.ir.sampled import Ended
from umbel.sched.request_table import RequestTable
from umbel.text.tokenizer import Tokenizer


class Rows:
    """Gathers the samples of each row; a row comes out once, complete or failed, and its twins right after it."""

    def __init__(self, requests: RequestTable, tokenizer: Tokenizer | None, scored: ScoredRuns):
        self.requests = requests
        self._scored = scored
        self.tokenizer = tokenizer
        self._partial: dict[int, list[Completion]] = {}
        self._twins: dict[int, list[int]] = {}  # per row that answers for others, those others
        self._source: dict[int, int] = {}  # of a twin, the row that answers for it
        self._muted: set[int] = set()  # rows that run for their twins alone

    def extend(self, first: int, same_as: NDArray[np.int64] | None) -> None:
        """Rows from number `first` on were added; `same_as[i]` is the one of them whose answer the i-th gets."""
        if same_as is not None:
            for twin in np.flatnonzero(same_as != np.arange(len(same_as))).tolist():
                self._source[first + twin] = source = first + int(same_as[twin])
                self._twins.setdefault(source, []).append(first + twin)

    def leave(self, row: int) -> int | None:
        """A row is not wanted any more, so it will not come out; returns the row to abandon for that, if any: itself,
        or the one that would have answered for it, unless others still wait for that one's answer."""
        source = self._source.pop(row, row)
        if source == row:
            self._muted.add(row)
        else:
            self._twins[source].remove(row)
        if self._twins.get(source) or source not in self._muted:
            return None
        self._partial.pop(source, None)
        self._muted.discard(source)
        return source

    def partial(self, row: int) -> tuple[Completion, ...]:
        """The completions of a row that are done while others are not."""
        return tuple(self._partial.get(row, ()))

    def begun(self) -> list[int]:
        """The rows of which some completions are done and others are not."""
        return list(self._partial)

    def drop(self, row: int) -> None:
        """Completions of a row that will not come out are not wanted."""
        self._partial.pop(row, None)

    def restore(self, row: int, done: Sequence[Completion]) -> None:
        """A row that was added has these completions already."""
        if done:
            self._partial[row] = list(done)

    def readers(self, row: int) -> list[int]:
        """The rows that a row's answer goes to."""
        return [*([] if row in self._muted else [row]), *self._twins.get(row, ())]

    def add(self, ended: Sequence[Ended]) -> Iterator[Output]:
        """Take in samples that ended; yields the rows that are complete with them."""
        for sample, text in zip(ended, self._texts(ended), strict=True):
            parts = self._partial.setdefault(sample.row, [])
            parts.append(_completion(sample, text))
            if len(parts) == self.requests.params[sample.row].n:
                outputs = tuple(sorted(self._partial.pop(sample.row), key=lambda c: c.index))
                scores = self._scored.take(sample.row)
                if any(score is not None and isnan(score.logprob) for score in scores or ()):
                    yield from self.fail(sample.row, NOT_FINITE)
                    continue
                size, before = len(self.requests.prompt(sample.row)), self.requests.places.item(sample.row)
                scores = scores and scores[before:]
                yield from self._fan_out(Output(sample.row, size, outputs, None, scores, sample.vector))

    def fail(self, row: int, error: RowError) -> Iterator[Output]:
        """The row's one output is an error; samples it had are dropped."""
        self._partial.pop(row, None)
        yield from self._fan_out(Output(row, len(self.requests.prompt(row)), error=error))

    def _fan_out(self, output: Output) -> Iterator[Output]:
        readers = self.readers(output.row)
        self._muted.discard(output.row)
        for twin in self._twins.pop(output.row, ()):
            del self._source[twin]
        for reader in readers:
            yield output if reader == output.row else replace(output, row=reader)

    def _texts(self, ended: Sequence[Ended]) -> list[str]:
        """Text of each sample; decoded together, except where a stop string has cut it already."""
        texts = [e.text or "" for e in ended]
        if self.tokenizer is None:
            return texts
        for skip in (True, False):
            at = [i for i, e in enumerate(ended) if e.text is None and self._params(e).skip_special_tokens == skip]
            if not at:
                continue
            for i, text in zip(at, self._decoded([ended[i] for i in at], skip_special_tokens=skip), strict=True):
                texts[i] = text
        return texts

    def _decoded(self, ended: Sequence[Ended], *, skip_special_tokens: bool) -> list[str]:
        """Their texts behind the prompts; the token that ended a sample shows only where its row asks for it."""
        assert self.tokenizer is not None
        decoder = self.tokenizer.decoder
        hides = [e.finish_reason == "stop" and not self._params(e).include_stop_str_in_output for e in ended]
        ids = [list(e.token_ids[:-1] if hide else e.token_ids) for e, hide in zip(ended, hides, strict=True)]
        if not decoder.first_apart:
            return decoder.decode_batch(ids, skip_special_tokens=skip_special_tokens)
        prompts = {e.row: self.requests.prompt(e.row) for e in ended}
        found = {row: decoder.context_of(p, skip_special_tokens=skip_special_tokens) for row, p in prompts.items()}
        return decoder.decode_answers(ids, [found[e.row] for e in ended], skip_special_tokens=skip_special_tokens)

    def _params(self, ended: Ended) -> SamplingParams:
        return self.requests.params[ended.row]


def _completion(ended: Ended, text: str) -> Completion:
    logprobs = ended.logprobs
    return Completion(
        index=ended.sample,
        text=text,
        token_ids=ended.token_ids,
        finish_reason=ended.finish_reason,
        stop_reason=ended.stop_reason,
        logprobs=logprobs,
        cumulative_logprob=None if logprobs is None else sum(t.logprob for t in logprobs),
    )

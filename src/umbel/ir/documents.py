"""Documents in prompts: runs of tokens that are computed as if nothing stood before them (TurboRAG, 2410.07590)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.errors import InvalidRequest
from umbel.ir.limits import refuse, shown
from umbel.ir.params import SamplingParams

Ints = NDArray[np.int64]
TokenIds = NDArray[np.int32]
Span = tuple[int, int]

_FIRST = 1 << 30  # beyond all token ids: the number of the first document, in keys


@dataclass(frozen=True, slots=True)
class Documents:
    """Where documents stand in the tokens of a workload: from `begin` to `end` (`[documents]`, ascending, disjoint).
    `number` is the same for equal ones, and for these alone."""

    begin: Ints
    end: Ints
    number: Ints

    @classmethod
    def of(cls, spans: Sequence[Sequence[Span]], offsets: Ints, tokens: TokenIds) -> Documents | None:
        """The documents of each prompt, which begin at `offsets` (`[prompts + 1]`) of `tokens`; None where there are
        none."""
        found = [(at + a, at + b) for at, row in zip(offsets.tolist(), spans, strict=False) for a, b in row]
        begin, end = np.array(found, np.int64).reshape(-1, 2).T
        return cls._at(begin, end, tokens) if found else None

    @classmethod
    def _at(cls, begin: Ints, end: Ints, tokens: TokenIds) -> Documents:
        seen: dict[bytes, int] = {}
        spans = zip(begin.tolist(), end.tolist(), strict=True)
        number = [seen.setdefault(tokens[a:b].tobytes(), len(seen)) for a, b in spans]
        return cls(begin, end, np.array(number, np.int64))

    @classmethod
    def joined(cls, each: Sequence[Documents | None], begin: Ints, tokens: TokenIds) -> Documents | None:
        """The documents of several workloads as one with all their `tokens`, each having those from `begin` on."""
        found = [(one.begin + at, one.end + at) for one, at in zip(each, begin, strict=True) if one is not None]
        if not found:
            return None
        return cls._at(np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found]), tokens)

    def picked(self, first: Ints, last: Ints, offsets: Ints) -> Documents | None:
        """The documents of prompts from `first` to `last`, which begin at `offsets` now (all `[prompts]`)."""
        low, high = np.searchsorted(self.begin, first), np.searchsorted(self.begin, last)
        counts, by = high - low, offsets - first
        at = np.arange(int(counts.sum())) + np.repeat(low - (np.cumsum(counts) - counts), counts)
        shift = np.repeat(by, counts)
        return Documents(self.begin[at] + shift, self.end[at] + shift, self.number[at]) if len(at) else None

    def which(self, at: Ints) -> Ints:
        """The document that each token (its place in the workload's) is part of, -1 for one that is in none."""
        found = np.searchsorted(self.begin, at, "right") - 1
        return np.asarray(np.where((found >= 0) & (at < self.end[found]), found, -1))

    def keys(self, tokens: TokenIds) -> TokenIds:
        """The tokens, with a number of the whole document in the place of each first one: so prompts agree up to a
        document or through all of it, and only where both have it as one."""
        found = tokens.copy()
        found[self.begin] = _FIRST + self.number
        return found


def check_spans(spans: object, length: int, params: SamplingParams, unit: str = "token") -> tuple[Span, ...]:
    """The documents of a prompt of so many tokens (or characters: `unit`), each as its first one and one past its last.
    Raises InvalidRequest for spans that are none, overlap or leave the prompt, and for a row that wants more of its
    prompt than an answer."""
    if not isinstance(spans, (list, tuple)):
        refuse("invalid_type", "documents", f"documents={shown(spans)}: must be a list of [first, end], in {unit}s")
    reach = 0
    for at, span in enumerate(spans):
        if not _is_span(span):
            refuse("invalid_type", "documents", f"documents[{at}]={shown(span)}: must be [first, end], in {unit}s")
        first, end = span
        if first < reach or end <= first:
            why = f"must begin at {unit} {reach} or behind it, where the one before ends, and have a {unit}"
            refuse("invalid_value", "documents", f"documents[{at}]={shown(span)}: {why}")
        reach = end
    if spans and reach >= length:
        why = f"the prompt has {length} {unit}s, and at least one must stand behind its documents: what is asked"
        refuse("invalid_value", "documents", f"documents end at {unit} {reach}: {why}")
    if spans:
        _check_wanted(params)
    return tuple((first, end) for first, end in spans)


def _is_span(span: object) -> bool:
    return isinstance(span, (list, tuple)) and len(span) == 2 and all(type(one) is int for one in span)


def _check_wanted(params: SamplingParams) -> None:
    """Raise InvalidRequest for what is made of each token of a prompt, of which documents are not computed again."""
    for name in ("prompt_logprobs", "pooling_params"):
        if getattr(params, name) is not None:
            message = f"{name} of a prompt with documents, which are computed elsewhere: leave one of them out"
            raise InvalidRequest("unsupported_parameter", message, name)
    if params.truncation not in (None, "error"):
        message = f"truncation={params.truncation!r} of a prompt with documents, which are whole or not there"
        raise InvalidRequest("unsupported_parameter", message, "truncation")

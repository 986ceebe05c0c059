"""What running samples have said so far: which of them end with this token, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.engine.watch.end_masks import EndMasks
from umbel.ir.request import TokenLogprobs
from umbel.ir.step import StepResult
from umbel.ir.token_masks import DrawMasks
from umbel.sched.draft import Drawn
from umbel.sched.request_table import RequestTable
from umbel.sched.sequences import Sequences
from umbel.text.detokenizer import AnswerStream
from umbel.text.tokenizer import Tokenizer

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ended:
    """A sample that is done: its tokens and why; `text` is set when a stop string cut it."""

    slot: int
    row: int
    sample: int
    token_ids: tuple[int, ...]
    finish_reason: str
    stop_reason: str | int | None
    text: str | None
    logprobs: tuple[TokenLogprobs, ...] | None


class LiveState:
    """Holds per running sample only what its row asked for: its text so far where it has stop strings, its logprobs.

    `width` is the model's vocabulary, where rows that leave no token to draw are to be known.
    """

    def __init__(self, requests: RequestTable, seqs: Sequences, tokenizer: Tokenizer | None, width: int | None = None):
        self.requests = requests
        self.seqs = seqs
        self.tokenizer = tokenizer
        self.width = width
        self._end_masks = EndMasks(width) if width is not None else None
        self.output_tokens = 0
        self._texts: dict[int, tuple[AnswerStream, list[str]]] = {}  # by rank; only rows with stop strings
        self._logprobs: dict[int, list[TokenLogprobs]] = {}  # by rank

    def take(self, slots: Ints, result: StepResult, counts: Ints | None = None) -> list[Ended]:
        """Record the tokens that `slots` were given; returns the samples that end with them. `counts` are the tokens of
        each up to this one, where more have been begun since."""
        seqs, tokens = self.seqs, result.token_ids
        counts = seqs.n_out[slots] if counts is None else counts
        rows = seqs.row[slots]
        self.output_tokens += len(slots)
        for i in np.flatnonzero(self.requests.logprobs[rows] >= 0).tolist() if result.logprobs is not None else ():
            self._logprobs.setdefault(int(seqs.rank[slots[i]]), []).append(_logprobs_of(result, i, self._k(rows[i])))
        full = counts >= seqs.max_out[slots]
        suspects = full | np.isin(tokens, self.requests.any_end) | self.requests.has_stops[rows]
        at = np.flatnonzero(suspects)
        every = zip(slots[at].tolist(), tokens[at].tolist(), counts[at].tolist(), strict=True)
        found = [self._look(slot, token, count) for slot, token, count in every]
        return [ended for ended in found if ended is not None]

    def masks(self, drawn: Drawn) -> DrawMasks | None:
        """What the samples of a step may draw; None where all of them may draw any token."""
        rows = self.seqs.row[drawn.slots]
        early = np.flatnonzero(drawn.counts <= self.requests.min_tokens[rows])
        if self._end_masks is None or len(early) == 0:
            return None
        return self._end_masks.of([self.requests.end_ids[row] for row in rows[early].tolist()], early, len(rows))

    def bans_all(self, row: int) -> bool:
        """Whether a row's `min_tokens` bans every token of the vocabulary, as each of them would end it."""
        return self.requests.params[row].min_tokens > 0 and len(set(self.requests.end_ids[row])) == self.width

    def forget(self, rank: int) -> None:
        """Drop what is held for a sample that was abandoned."""
        self._texts.pop(rank, None)
        self._logprobs.pop(rank, None)

    def _look(self, slot: int, token: int, count: int) -> Ended | None:
        """Whether the sample ends with its token number `count`: at an end id, a stop string or its limit, in order."""
        row = int(self.seqs.row[slot])
        params = self.requests.params[row]
        stream, ends = None, token in self.requests.end_ids[row] and count > params.min_tokens
        if self.requests.has_stops[row] and (not ends or params.include_stop_str_in_output):
            stream, text = self._text(slot, row)
            text.append(stream.push([token]))
        if ends:
            return self._end(slot, count, "stop", token if token in params.stop_token_ids else None)
        if stream is not None and stream.stop is not None:
            return self._end(slot, count, "stop", stream.stop)
        return self._end(slot, count, "length", None) if count >= self.seqs.max_out[slot] else None

    def _text(self, slot: int, row: int) -> tuple[AnswerStream, list[str]]:
        rank = int(self.seqs.rank[slot])
        if rank not in self._texts:
            assert self.tokenizer is not None  # rows with stop strings are refused where there is no tokenizer
            stream = AnswerStream.of(self.tokenizer, self.requests.params[row], self.requests.prompt(row))
            self._texts[rank] = stream, []
        return self._texts[rank]

    def _end(self, slot: int, count: int, reason: str, stop: str | int | None) -> Ended:
        rank, seqs = int(self.seqs.rank[slot]), self.seqs
        text = None
        if rank in self._texts:
            stream, parts = self._texts[rank]
            text = "".join(parts) + stream.finish()
            if stream.stop is not None:  # also when only the last, held back character completed it
                reason, stop = "stop", stream.stop
        logprobs = self._logprobs.get(rank)
        self.forget(rank)
        return Ended(
            slot=slot,
            row=int(seqs.row[slot]),
            sample=int(seqs.sample[slot]),
            token_ids=tuple(seqs.out[slot, :count].tolist()),
            finish_reason=reason,
            stop_reason=stop,
            text=text,
            logprobs=None if logprobs is None else tuple(logprobs),
        )

    def _k(self, row: int) -> int:
        return int(self.requests.params[row].logprobs or 0)


def _logprobs_of(result: StepResult, i: int, k: int) -> TokenLogprobs:
    """The log-probabilities of sample `i`: its token's, and the `k` most likely ones."""
    assert result.logprobs is not None and result.top_ids is not None and result.top_logprobs is not None
    top = zip(result.top_ids[i, :k].tolist(), result.top_logprobs[i, :k].tolist(), strict=True)
    return TokenLogprobs(int(result.token_ids[i]), float(result.logprobs[i]), tuple(top))

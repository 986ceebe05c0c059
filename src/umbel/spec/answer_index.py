"""What came after which tokens in answers that are finished: what a batch knows of the answers that it still writes.

Contexts are the last tokens of an answer, less and its beginning where it is shorter: one or two of any answer, then
two, four and eight of one scope (the rows' template), so that a template of few rows begins with what others wrote.
Of each context the last place is kept after which its usual token came (Boyer and Moore 1981); a context is learned
only where the one before it was wrong, as in Ziv and Lempel's dictionaries (LZ78), so that a token adds one entry at
most, and text that was foreseen none. A draft is what an answer went on with behind the place whose token is the most
likely by these votes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.spec.context_table import PLACE_BITS, ContextTable, Words, keys_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

CONTEXTS = ((1, False), (2, False), (2, True), (4, True), (8, True))  # how many tokens, and whether of one scope only
WIDTH = 8  # tokens of the longest
BEGIN = -1  # stands before an answer's first token, and behind its last one
LIMIT = 1 << 20  # tokens kept unless asked otherwise
MOST_VOTES = 15  # counted for and against a context's token; beyond, both are halved
_VOTE_BITS = MOST_VOTES.bit_length()
UNKNOWN = 0.5  # how likely a token is that came once

_GROWTH = 1.125
_ODD = np.uint64(0x9E3779B97F4A7C15)
_OF_KINDS = np.array([pow(0xD1B54A32D192ED03, i + 1, 1 << 64) for i in range(len(CONTEXTS))], np.uint64)
_OF_SCOPES = np.array([int(_ODD) * scoped for _, scoped in CONTEXTS], np.uint64)
_OF_TOKENS = np.array(  # [WIDTH, contexts]: the factor of each token in each context, 0 where it is not of it
    [[pow(int(_ODD), 9 * i + n + 2, 1 << 64) * (WIDTH - i <= n) for n, _ in CONTEXTS] for i in range(WIDTH)],
    np.uint64,
)
_VOTES = np.arange(256)
_SCORES = ((_VOTES >> 4) + UNKNOWN) / ((_VOTES >> 4) + (_VOTES & 15) + 1)  # how likely a context's token is, by votes


@dataclass(frozen=True, slots=True)
class Continuations:
    """What answers are expected to go on with: `tokens` (`[answers, most]`), of which the first `counts` are given
    (`[answers]`), and how likely each is, given that those before it were right (`[answers, most]`, 0 beyond)."""

    tokens: Ints
    likely: Floats
    counts: Ints


class AnswerIndex:
    """Finished answers; of those beyond `limit` tokens the older half is forgotten."""

    def __init__(self, limit: int = LIMIT):
        if not 0 < limit < 1 << PLACE_BITS:
            raise ValueError(f"limit={limit}: an index holds 1 to {(1 << PLACE_BITS) - 1:,} tokens")
        self.limit = limit
        self.n_tokens = 0  # held, the marks behind answers included
        self.contexts = ContextTable()
        self._log = np.full(1024, BEGIN, np.int32)
        self._likely = np.zeros(1024, np.uint8)  # of each token of the log, in 255ths

    @property
    def n_bytes(self) -> int:
        """Memory held."""
        return self._log.nbytes + self._likely.nbytes + self.contexts.n_bytes

    def propose(self, scopes: Ints, tails: Ints, most: int) -> Continuations:
        """Up to `most` tokens that may follow: `tails` (`[answers, WIDTH]`) are the last tokens of each answer, with
        BEGIN before its first one."""
        entries = self.contexts.find(_keys(scopes, tails)[:, ::-1])  # [answers, contexts], the longest first
        scores = _SCORES[self.contexts.votes[entries]] * (entries >= 0)
        best = (np.arange(len(entries)), scores.argmax(1))
        score, entry = scores[best], entries[best]
        place = np.where(score > 0, self.contexts.place_of(entry), self.n_tokens)  # where BEGIN stands
        places = np.minimum(place[:, None] + np.arange(most), self.n_tokens)
        tokens, likely = self._log[places], self._likely[places] / 255
        likely[:, 0] = score
        inside = np.logical_and.accumulate(tokens != BEGIN, axis=1)
        return Continuations(tokens, likely * inside, inside.sum(1))

    def add(self, scopes: Ints, tokens: Ints, begin: Ints) -> None:
        """Answers are finished: that of scope `scopes[i]` is `tokens[begin[i]:begin[i + 1]]`."""
        counts, most = np.diff(begin), self.limit // 2
        if begin[-1] + len(counts) > most:
            half = len(counts) // 2
            if not half:
                self.add(scopes, tokens[: most - 1], np.array([0, most - 1]))
                return
            self.add(scopes[:half], tokens[: begin[half]], begin[: half + 1])
            self.add(scopes[half:], tokens[begin[half] :], begin[half:] - begin[half])
            return
        first = self._append(tokens, begin)
        owner = np.repeat(np.arange(len(counts)), counts)
        inside = np.arange(len(tokens)) - begin[owner]
        places = np.arange(WIDTH) - WIDTH + inside[:, None]
        tails = np.where(places >= 0, tokens[np.maximum(places + begin[owner, None], 0)], BEGIN)
        self._learn(_keys(scopes[owner], tails), first + np.arange(len(tokens)) + owner)

    def _learn(self, keys: Words, at: Ints) -> None:
        """The tokens at `at` (`[tokens]`) came after contexts (`[tokens, contexts]`), short ones first."""
        table, left, wrong = self.contexts, np.arange(len(at)), np.ones(len(at), bool)
        likely, usual = np.full(len(at), UNKNOWN), at.copy()  # and where the token that it should have been stands
        chance = likely.copy()  # of that token
        table.make_room(len(at))
        for kind in range(len(CONTEXTS)):
            entries, first = table.find_or_insert(keys[left, kind], at[left], wrong)
            again = np.flatnonzero(~first & (entries >= 0))
            left, entries = left[again], entries[again]
            if not len(left):
                break
            hits, misses, agrees = self._vote(entries, at[left])
            usual[left] = table.place_of(entries)
            likely[left] = (likely[left] + agrees * hits) / (1 + hits + misses)
            chance[left] = (self._likely[usual[left]] / 255 + hits) / (1 + hits + misses)
            wrong = ~agrees
        missed = self._log[usual] != self._log[at]
        self._likely[usual[missed]] = _rounded(chance[missed])
        self._likely[at] = _rounded(likely)

    def _vote(self, entries: Ints, at: Ints) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        """Contexts came again, followed by the tokens at `at`: count those that are the usual one, which stands there
        last now, and the others, the last of which takes over where they are more. Returns the counts of each token's
        context, and whether the token is the usual one by now."""
        table, log = self.contexts, self._log
        each, group = np.unique(entries, return_inverse=True)
        agrees = log[table.place_of(entries)] == log[at]
        votes = table.votes[each].astype(np.int64)
        hits = (votes >> 4) + np.bincount(group[agrees], minlength=len(each))
        against = np.bincount(group[~agrees], minlength=len(each))
        misses = (votes & 15) + against
        table.move(entries[agrees], at[agrees])  # the last one stays
        over = (misses > hits) & (against > 0)
        other = ~agrees & over[group]
        table.move(entries[other], at[other])
        hits[over] = 0
        shift = np.maximum(np.frexp(np.maximum(hits, misses))[1] - _VOTE_BITS, 0)
        hits, misses = hits >> shift, misses >> shift
        table.votes[each] = hits << 4 | misses
        return hits[group], misses[group], log[table.place_of(entries)] == log[at]

    def _append(self, tokens: Ints, begin: Ints) -> int:
        """Put answers into the log with a BEGIN behind each; returns where the first one stands."""
        count = len(tokens) + len(begin) - 1
        if self.n_tokens + count > self.limit:
            self._forget()
        first = self.n_tokens
        self.n_tokens = total = first + count
        if total >= len(self._log):
            more = int(total * _GROWTH) + 64 - len(self._log)
            self._log = np.append(self._log, np.full(more, BEGIN, np.int32))
            self._likely = np.append(self._likely, np.zeros(more, np.uint8))
        self._log[first:total] = np.insert(tokens, begin[1:], BEGIN)
        self._likely[first:total] = _rounded(np.array(UNKNOWN))
        return first

    def _forget(self) -> None:
        """The older answers go, and what only they taught."""
        before = self.n_tokens - self.limit // 2
        self.contexts.forget(before)
        self.n_tokens -= before
        for column in (self._log, self._likely):
            column[: self.n_tokens] = column[before : before + self.n_tokens]
        self._log[self.n_tokens :] = BEGIN


def _rounded(likely: Floats) -> NDArray[np.uint8]:
    """Probabilities in 255ths, none of them 0."""
    return np.maximum(np.rint(likely * 255), 1).astype(np.uint8)


def _keys(scopes: Ints, tails: Ints) -> Words:
    """The key of every context that tails end with (`[answers, contexts]`); `tails` are `[answers, WIDTH]`."""
    sums = tails.view(np.uint64) @ _OF_TOKENS
    sums += scopes.view(np.uint64)[:, None] * _OF_SCOPES + _OF_KINDS
    sums ^= sums >> np.uint64(32)
    sums *= _ODD
    return keys_of(sums)

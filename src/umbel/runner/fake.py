"""A runner without a model: tokens from a hash of what a sample could have seen, so that any mix-up changes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.ir.layer_group import LayerGroup
from umbel.ir.scores import Scores, TokenScores
from umbel.ir.step import Ints, Sampling, Step, StepResult
from umbel.ir.token_masks import unpacked
from umbel.kv.slots import row_nodes, slots_of
from umbel.runner.base import Wait, done

_MIX = np.uint64(0x9E3779B97F4A7C15)


class FakeRunner:
    """Keeps a real table of what was written to each KV slot and answers from what the step's pages really hold.

    The token a row produces is a hash of (position, token) over every position up to its own, read back through the
    step's pages: a page given away too early, a wrong slot or a node left out changes the answer, as in a real model.
    So does a token that has not passed all layers.
    """

    ahead = 0

    def __init__(self, n_pages: int, page_size: int, vocab_size: int):
        self.n_pages, self.page_size = n_pages, page_size
        self.slots = np.full(n_pages * page_size, -1, np.int64)  # hash of (position, token) in each slot
        self.vocab_size = vocab_size
        self._waiting: dict[int, tuple[int, int, int]] = {}  # place -> slot, mark, layers passed
        self.rows_run = 0

    def start(self, step: Step) -> Wait:
        """Write the rows' tokens into their slots, then read each sampled row's whole context back."""
        node = row_nodes(step)
        fresh = step.fresh
        slots = slots_of(step, node, step.positions)
        marks = _mark(step.positions, step.tokens)
        if (self.slots[slots[~fresh]] != marks[~fresh]).any():
            raise AssertionError("a row that must not be written is not in its slot")
        self.slots[slots[fresh]] = marks[fresh]
        self._pass(step.group, slots, marks)
        self.rows_run += step.n_rows
        draws = [self._draw(step, int(node[r]), int(step.positions[r]), i) for i, r in enumerate(step.sampling.at)]
        tokens, bad = np.array(draws, np.int64), np.zeros(len(draws), bool)
        scores = None if step.scores is None else self._score(step, step.scores, node)
        return done(StepResult(*self._allowed(step.sampling, tokens, bad), scores=scores))

    def close(self) -> None:
        """Do nothing: there is no device."""

    def _pass(self, group: LayerGroup | None, slots: Ints, marks: Ints) -> None:
        """Rows pass a group of layers, and those before it first; what is behind the last one can be read."""
        if group is None:
            self._waiting = {}
            return
        for row, place in zip(group.rows.tolist(), group.places.tolist(), strict=True):
            known = self._waiting.pop(place, None) if group.first else None
            if group.first and known != (slots[row], marks[row], group.first):
                raise AssertionError(f"row {row} of layers from {group.first} on has not passed those before: {known}")
            if not group.is_last:
                self._waiting[place] = int(slots[row]), int(marks[row]), group.end
                self.slots[slots[row]] = -1

    def _draw(self, step: Step, node: int, position: int, sample: int) -> int:
        total = self._context(step, node, position)
        if step.sampling.temperature[sample] > 0:
            total += int(step.sampling.samples[sample]) * int(_MIX)
        total += _changed(step.sampling, sample)
        return (total * int(_MIX) >> 33) % self.vocab_size

    def _score(self, step: Step, scores: Scores, node: Ints) -> TokenScores:
        """A hash of what each row sees and its target, as a number below 0; the most likely ids are the next ones."""
        contexts = [self._context(step, int(node[r]), int(step.positions[r])) for r in scores.at.tolist()]
        ids = (scores.targets[:, None] + np.arange(scores.top + 1)) % self.vocab_size
        pairs = zip(contexts, ids.tolist(), strict=True)
        logprobs = np.array([[fake_logprob(context, token) for token in row] for context, row in pairs])
        return TokenScores(logprobs[:, 0], ids[:, 1:], logprobs[:, 1:])

    def _context(self, step: Step, node: int, position: int) -> int:
        """The sum of the hashes in the slots of all positions that a row sees."""
        total = 0
        while node >= 0:
            last = min(int(step.end[node]), position + 1)
            span = np.arange(step.start[node], last)
            total += int(self.slots[slots_of(step, np.full(len(span), node), span)].astype(object).sum())
            node = int(step.parent[node])
        return total

    def _allowed(self, sampling: Sampling, tokens: Ints, bad: NDArray[np.bool_]) -> tuple[Ints, NDArray[np.bool_]]:
        """Where a draw has a mask, the first token of it from the drawn one on; bad where the mask is empty."""
        if sampling.filled is not None:
            sampling.filled()
        if sampling.mask is not None and sampling.masks is not None:
            allowed = unpacked(sampling.masks, self.vocab_size)
            for draw in np.flatnonzero(sampling.mask >= 0).tolist():
                ids = np.flatnonzero(allowed[sampling.mask[draw]])
                bad[draw] = len(ids) == 0
                tokens[draw] = ids[np.searchsorted(ids, tokens[draw]) % len(ids)] if len(ids) else 0
        return tokens, bad


def _changed(sampling: Sampling, draw: int) -> int:
    """A hash of what is to be done to the logits of a draw, whatever the order of its tokens."""
    changes = sampling.changes
    total = 0
    for place in np.flatnonzero(changes.draws == draw).tolist() if changes is not None else ():
        assert changes is not None
        own = slice(changes.begin[place], changes.begin[place + 1])
        columns = (changes.ids[own], changes.counts[own], changes.bias[own])
        entries = zip(*(column.tolist() for column in columns), strict=True)
        total += sum(hash(entry) for entry in entries) + hash(tuple(changes.penalties[place].tolist()))
    return total


def fake_logprob(context: int, token: int) -> float:
    """The log-probability of a token behind a context, given as the sum of its hashes."""
    return -float(((context + token) * int(_MIX) >> 33) % 10_007 + 1) / 1_024


def _mark(positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        mixed = (positions.astype(np.uint64) << np.uint64(32) | tokens.astype(np.uint64)) * _MIX
        return (mixed >> np.uint64(2)).astype(np.int64)

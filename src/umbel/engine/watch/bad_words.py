"""Keeps samples from completing the bad words of their rows: those of several tokens, by what was drawn before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from umbel.engine.watch.allowed_tokens import runs_of
from umbel.engine.watch.base import Surroundings, Watcher
from umbel.engine.watch.by_params import ByParams
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.ir.sampled import Drawing, Ints, Outcomes, SampledTokens, TokenIds
from umbel.ir.token_masks import DrawMasks, all_but

Run = tuple[int, ...]


class BadWords(Watcher):
    """Watches rows with bad words of several tokens: holds the last tokens of their samples. A word counts that lies in
    the answer as a whole (as in vLLM); only its last token is forbidden, where all others stand before it."""

    def __init__(self, around: Surroundings):
        super().__init__(around)
        self._vocab_size, self._tokenizer = around.vocab_size or 0, around.tokenizer
        self._runs = ByParams(self._long_runs)
        self._said: dict[int, list[int]] = {}  # by rank
        self.masking = around.vocab_size is not None
        self.lockstep = around.ahead

    def watches(self, params: SamplingParams) -> bool:
        """Whether the row has a bad word of several tokens."""
        return bool(params.bad_words) and bool(self._runs.of(params))

    def look(self, sampled: SampledTokens, which: Ints, outcomes: Outcomes) -> None:
        """Note the tokens that count."""
        drawing, tokens = sampled.drawing, sampled.tokens
        begin, keep = drawing.begin[which].tolist(), outcomes.keep[which].tolist()
        for rank, row, first, kept in zip(
            drawing.ranks[which].tolist(), drawing.rows[which].tolist(), begin, keep, strict=True
        ):
            self._note(rank, row, tokens[first : first + kept].tolist())

    def masks(self, drawing: Drawing, which: Ints) -> DrawMasks | None:
        """Forbid the tokens that would complete a word."""
        banned: dict[int, tuple[int, ...]] = {}
        for sample, rank, row in zip(
            which.tolist(), drawing.ranks[which].tolist(), drawing.rows[which].tolist(), strict=True
        ):
            begin, end = drawing.begin.item(sample), drawing.begin.item(sample + 1)
            proposed = [] if drawing.proposed is None else drawing.proposed[begin : end - 1].tolist()
            before, runs = self._said.get(rank, []), self._runs.of(self.requests.params[row])
            for draw in range(begin, end):
                if found := _completing([*before, *proposed[: draw - begin]], runs):
                    banned[draw] = found
        if not banned:
            return None
        used = {ids: place for place, ids in enumerate(dict.fromkeys(banned.values()))}
        mask = np.full(drawing.begin.item(-1), -1)
        mask[list(banned)] = [used[ids] for ids in banned.values()]
        return DrawMasks(mask, np.stack([all_but(ids, self._vocab_size) for ids in used]))

    def adopt(self, rank: int, row: int, tokens: TokenIds, logprobs: Sequence[TokenLogprobs] | None = None) -> None:
        """Note tokens that the sample did not draw here: they are part of its answer."""
        self._note(rank, row, tokens.tolist())

    def forget(self, ranks: Ints) -> None:
        """Drop the tokens of samples that are gone."""
        for rank in ranks.tolist() if self._said else ():
            self._said.pop(rank, None)

    def _note(self, rank: int, row: int, tokens: list[int]) -> None:
        runs = self._runs.of(self.requests.params[row])
        most = max(len(run) for each in runs.values() for run in each) - 1
        self._said[rank] = [*self._said.get(rank, []), *tokens][-most:]

    def _long_runs(self, params: SamplingParams) -> dict[int, list[Run]]:
        """The runs of several tokens, by the last token but one."""
        found: dict[int, list[Run]] = {}
        for run in runs_of(self._tokenizer, params.bad_words):
            if len(run) > 1:
                found.setdefault(run[-2], []).append(run)
        return found


def _completing(tokens: list[int], runs: dict[int, list[Run]]) -> tuple[int, ...]:
    """The tokens that would complete one of the runs behind others, ascending."""
    ends = runs.get(tokens[-1], []) if tokens else []
    return tuple(sorted({run[-1] for run in ends if tuple(tokens[1 - len(run) :]) == run[:-1]}))

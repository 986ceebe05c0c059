"""Changes the logits of samples before they draw: by biases of tokens, by penalties for tokens that are there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from umbel.engine.watch.base import Surroundings, Watcher
from umbel.engine.watch.by_params import ByParams
from umbel.engine.watch.token_counts import TokenCounts
from umbel.ir.logit_changes import NO_PENALTIES, LogitChanges
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.ir.sampled import Drawing, Ints, Outcomes, SampledTokens, TokenIds

NOTHING = np.zeros(0, np.int32)


class LogitBias(Watcher):
    """Watches rows with a `logit_bias` and without penalties: the changes are the same for each draw."""

    changing = True

    def __init__(self, around: Surroundings):
        super().__init__(around)
        self._biases = ByParams(lambda params: TokenCounts(params.logit_bias, NOTHING))

    def watches(self, params: SamplingParams) -> bool:
        """Whether the row has biases alone."""
        return bool(params.logit_bias) and not params.has_penalties

    def changes(self, drawing: Drawing, which: Ints) -> LogitChanges | None:
        """The biases of its samples, for each of their draws."""
        tallies = list[TokenCounts]()
        for row, count in zip(drawing.rows[which].tolist(), drawing.counts[which].tolist(), strict=True):
            tallies += [self._biases.of(self.requests.params[row])] * count
        penalties = np.tile(np.array(NO_PENALTIES, np.float32), (len(tallies), 1))
        return _changes(_draws_of(drawing, which), tallies, penalties)


class Penalties(Watcher):
    """Watches rows with penalties: holds how often each token of their samples was generated."""

    changing = True

    def __init__(self, around: Surroundings):
        super().__init__(around)
        self.lockstep = around.ahead
        self._tallies: dict[int, TokenCounts] = {}  # by rank

    def watches(self, params: SamplingParams) -> bool:
        """Whether the row has a penalty."""
        return params.has_penalties

    def look(self, sampled: SampledTokens, which: Ints, outcomes: Outcomes) -> None:
        """Count the tokens that count."""
        drawing, tokens = sampled.drawing, sampled.tokens
        begin, keep = drawing.begin[which].tolist(), outcomes.keep[which].tolist()
        samples = zip(drawing.ranks[which].tolist(), drawing.rows[which].tolist(), begin, keep, strict=True)
        for rank, row, first, kept in samples:
            self._tally(rank, row).add(tokens[first : first + kept].tolist())

    def changes(self, drawing: Drawing, which: Ints) -> LogitChanges | None:
        """The penalties of its samples by what each has before each of its draws: of a step that checks proposed tokens
        these come before the draws behind them."""
        tallies = list[TokenCounts]()
        ranks, rows = drawing.ranks[which].tolist(), drawing.rows[which].tolist()
        for sample, rank, row in zip(which.tolist(), ranks, rows, strict=True):
            tallies.append(self._tally(rank, row))
            if drawing.proposed is not None:
                proposed = drawing.proposed[drawing.begin[sample] : drawing.begin[sample + 1] - 1].tolist()
                for token in proposed:
                    tallies.append(tallies[-1].followed_by([token]))
        params = [self.requests.params[row] for row in rows]
        penalties = [(p.repetition_penalty, p.frequency_penalty, p.presence_penalty) for p in params]
        own = np.repeat(np.array(penalties, np.float32), drawing.counts[which], axis=0)
        return _changes(_draws_of(drawing, which), tallies, own)

    def adopt(self, rank: int, row: int, tokens: TokenIds, logprobs: Sequence[TokenLogprobs] | None = None) -> None:
        """Count tokens that the sample did not draw here: they are part of its answer."""
        self._tally(rank, row).add(tokens.tolist())

    def forget(self, ranks: Ints) -> None:
        """Drop the counts of samples that are gone."""
        for rank in ranks.tolist() if self._tallies else ():
            self._tallies.pop(rank, None)

    def _tally(self, rank: int, row: int) -> TokenCounts:
        if rank not in self._tallies:
            params = self.requests.params[row]
            prompt = self.requests.prompt(row) if params.repetition_penalty != 1.0 else NOTHING
            self._tallies[rank] = TokenCounts(params.logit_bias, prompt)
        return self._tallies[rank]


def _draws_of(drawing: Drawing, which: Ints) -> Ints:
    """The draws of some samples (ascending)."""
    return which if drawing.single else np.flatnonzero(np.isin(drawing.owner, which))


def _changes(draws: Ints, tallies: Sequence[TokenCounts], penalties: np.ndarray) -> LogitChanges:
    """The changes of draws, each by what its sample has."""
    return LogitChanges(
        draws,
        np.append(0, np.cumsum([tally.used for tally in tallies])),
        np.concatenate([tally.ids[: tally.used] for tally in tallies]),
        np.concatenate([tally.bias[: tally.used] for tally in tallies]),
        np.concatenate([tally.counts[: tally.used] for tally in tallies]),
        penalties,
    )

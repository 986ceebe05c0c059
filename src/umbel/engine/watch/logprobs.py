"""Collects the log-probabilities of samples whose rows ask for them."""

from __future__ import annotations

from collections.abc import Sequence

from umbel.engine.watch.base import Surroundings, Watcher
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.ir.sampled import Ints, Outcomes, SampledTokens, TokenIds
from umbel.ir.step import StepResult


class Logprobs(Watcher):
    """Watches rows with `logprobs`. Comes last, when it is certain which tokens count."""

    def __init__(self, around: Surroundings):
        super().__init__(around)
        self._found: dict[int, list[TokenLogprobs]] = {}  # by rank

    def watches(self, params: SamplingParams) -> bool:
        """Whether the row asks for log-probabilities."""
        return params.num_logprobs is not None

    def look(self, sampled: SampledTokens, which: Ints, outcomes: Outcomes) -> None:
        """Note the log-probabilities of tokens that count; samples that end take all of theirs along."""
        drawing = sampled.drawing
        for sample in which.tolist():
            begin, rank = int(drawing.begin[sample]), int(drawing.ranks[sample])
            k, found = int(self.requests.logprobs[drawing.rows[sample]]), self._found.setdefault(rank, [])
            ranked = not self.requests.params[int(drawing.rows[sample])].logprob_token_ids
            draws = range(begin, begin + int(outcomes.keep[sample]))
            found += [_of_draw(sampled.result, draw, k, ranked=ranked) for draw in draws]
            if sample in outcomes.finished:
                outcomes.finished[sample].logprobs = tuple(found)

    def adopt(self, rank: int, row: int, tokens: TokenIds, logprobs: Sequence[TokenLogprobs] | None = None) -> None:
        """Take over what is known; a token that was given to the sample was certain."""
        self._found.setdefault(rank, []).extend(logprobs or [TokenLogprobs(token, 0.0) for token in tokens.tolist()])

    def collected(self, rank: int) -> tuple[TokenLogprobs, ...] | None:
        """What the sample has had."""
        return tuple(self._found[rank]) if rank in self._found else None

    def forget(self, ranks: Ints) -> None:
        """Drop what samples that are gone have had."""
        for rank in ranks.tolist() if self._found else ():
            self._found.pop(rank, None)


def _of_draw(result: StepResult, draw: int, k: int, *, ranked: bool) -> TokenLogprobs:
    """The log-probability of the token drawn, and those of the `k` most likely ones or, if not `ranked`, of `k` that
    were asked for."""
    assert result.logprobs is not None and result.top_ids is not None and result.top_logprobs is not None
    top = zip(result.top_ids[draw, :k].tolist(), result.top_logprobs[draw, :k].tolist(), strict=True)
    return TokenLogprobs(int(result.token_ids[draw]), float(result.logprobs[draw]), tuple(top), ranked=ranked)

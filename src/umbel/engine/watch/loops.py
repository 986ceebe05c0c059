"""Ends samples whose answers have become loops, where their rows ask for that."""

from __future__ import annotations

from collections.abc import Sequence

from umbel.engine.watch.base import Surroundings, Watcher
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.ir.sampled import Finish, Ints, Outcomes, SampledTokens, TokenIds


class Loops(Watcher):
    """Watches rows with `repetition_detection`: holds the tokens of their samples. End tokens, limits and, as it comes
    before them, stop strings that are complete with the same token go first (as in vLLM)."""

    def __init__(self, around: Surroundings):
        super().__init__(around)
        self._said: dict[int, list[int]] = {}  # by rank

    def watches(self, params: SamplingParams) -> bool:
        """Whether the row is to end when it repeats itself."""
        return params.repetition_detection is not None

    def look(self, sampled: SampledTokens, which: Ints, outcomes: Outcomes) -> None:
        """End samples with the token that makes a pattern complete so many times, from their `min_tokens` on."""
        drawing = sampled.drawing
        for sample in which.tolist():
            params = self.requests.params[drawing.rows.item(sample)]
            begin, keep, ended = drawing.begin.item(sample), outcomes.keep.item(sample), sample in outcomes.finished
            said, detection = self._said.setdefault(drawing.ranks.item(sample), []), params.repetition_detection
            for place in range(keep):
                said.append(sampled.tokens.item(begin + place))
                last = ended and place == keep - 1
                if detection and not last and len(said) >= params.min_tokens and detection.found_in(said):
                    outcomes.end(sample, place + 1, Finish("repetition", "repetition_detected"))
                    break

    def adopt(self, rank: int, row: int, tokens: TokenIds, logprobs: Sequence[TokenLogprobs] | None = None) -> None:
        """Note tokens that the sample did not draw here: a loop that is complete in them ends nothing."""
        self._said.setdefault(rank, []).extend(tokens.tolist())

    def forget(self, ranks: Ints) -> None:
        """Drop the tokens of samples that are gone."""
        for rank in ranks.tolist() if self._said else ():
            self._said.pop(rank, None)

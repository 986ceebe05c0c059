"""Ends samples at the stop strings of their rows."""

from __future__ import annotations

from collections.abc import Sequence

from umbel.engine.watch.base import Surroundings, Watcher
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.ir.sampled import Finish, Ints, Outcomes, SampledTokens, TokenIds
from umbel.text.detokenizer import AnswerStream


class StopStrings(Watcher):
    """Watches rows with stop strings: holds the text of their samples so far."""

    def __init__(self, around: Surroundings):
        super().__init__(around)
        self._tokenizer = around.tokenizer
        self._texts: dict[int, tuple[AnswerStream, list[str]]] = {}  # by rank

    def watches(self, params: SamplingParams) -> bool:
        """Whether the row has stop strings."""
        return bool(params.stop)

    def look(self, sampled: SampledTokens, which: Ints, outcomes: Outcomes) -> None:
        """End samples with the token that completes a stop string; the text of all that end is known then."""
        drawing = sampled.drawing
        for sample in which.tolist():
            begin, keep = int(drawing.begin[sample]), int(outcomes.keep[sample])
            if keep:
                tokens = sampled.tokens[begin : begin + keep].tolist()
                self._read(int(drawing.ranks[sample]), int(drawing.rows[sample]), sample, tokens, outcomes)

    def adopt(self, rank: int, row: int, tokens: TokenIds, logprobs: Sequence[TokenLogprobs] | None = None) -> None:
        """Read tokens that the sample did not draw: a stop string that is complete in them ends nothing."""
        stream, text = self._text(rank, row)
        text.append(stream.push(tokens.tolist(), check=False))

    def forget(self, ranks: Ints) -> None:
        """Drop the texts of samples that are gone."""
        for rank in ranks.tolist() if self._texts else ():
            self._texts.pop(rank, None)

    def _read(self, rank: int, row: int, sample: int, tokens: list[int], outcomes: Outcomes) -> None:
        """More tokens of a sample: up to the first that completes a stop string, if one does."""
        stream, text = self._text(rank, row)
        finish = outcomes.finished.get(sample)
        hidden = finish is not None and finish.reason == "stop"  # at an end token
        shown = tokens[:-1] if hidden and not self.requests.params[row].include_stop_str_in_output else tokens
        for place, token in enumerate(shown):
            text.append(stream.push([token]))
            if stream.stop is not None:
                outcomes.end(sample, place + 1, finish := Finish("stop", stream.stop))
                break
        if finish is not None:
            finish.text = "".join(text) + stream.finish()
            if stream.stop is not None:  # also when only the last, held back character completed it
                finish.reason, finish.stop = "stop", stream.stop

    def _text(self, rank: int, row: int) -> tuple[AnswerStream, list[str]]:
        if rank not in self._texts:
            assert self._tokenizer is not None  # rows with stop strings are refused where there is no tokenizer
            stream = AnswerStream.of(self._tokenizer, self.requests.params[row], self.requests.prompt(row))
            self._texts[rank] = stream, []
        return self._texts[rank]

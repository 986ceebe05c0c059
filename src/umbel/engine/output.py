"""From ended samples to rows: text in bulk, and one Output when all samples of a row are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from umbel.engine.state import Ended
from umbel.ir.request import Completion, Output, RowError
from umbel.ir.workload import Workload
from umbel.tokenizer import Tokenizer


class Rows:
    """Gathers the samples of each row; a row comes out once, complete or failed."""

    def __init__(self, workload: Workload, tokenizer: Tokenizer | None):
        self.workload = workload
        self.tokenizer = tokenizer
        self._partial: dict[int, list[Completion]] = {}

    def add(self, ended: Sequence[Ended]) -> Iterator[Output]:
        """Take in samples that ended; yields the rows that are complete with them."""
        for sample, text in zip(ended, self._texts(ended), strict=True):
            parts = self._partial.setdefault(sample.row, [])
            parts.append(_completion(sample, text))
            if len(parts) == self.workload.params[sample.row].n:
                outputs = tuple(sorted(self._partial.pop(sample.row), key=lambda c: c.index))
                yield Output(sample.row, self._prompt_tokens(sample.row), outputs)

    def fail(self, row: int, error: RowError) -> Output:
        """The row's one output is an error; samples it had are dropped."""
        self._partial.pop(row, None)
        return Output(row, self._prompt_tokens(row), error=error)

    def _prompt_tokens(self, row: int) -> int:
        return int(self.workload.offsets[row + 1] - self.workload.offsets[row])

    def _texts(self, ended: Sequence[Ended]) -> list[str]:
        """Text of each sample; decoded together, except where a stop string has cut it already."""
        texts = [e.text or "" for e in ended]
        if self.tokenizer is None:
            return texts
        for skip in (True, False):
            at = [i for i, e in enumerate(ended) if e.text is None and self._skips(e) == skip]
            decoded = self.tokenizer.decode_batch([list(ended[i].token_ids) for i in at], skip_special_tokens=skip)
            for i, text in zip(at, decoded, strict=True):
                texts[i] = text
        return texts

    def _skips(self, ended: Ended) -> bool:
        return self.workload.params[ended.row].skip_special_tokens


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

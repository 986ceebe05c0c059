"""A row that was taken out before its end, as plain values, to be taken up again anywhere."""

from __future__ import annotations

from dataclasses import dataclass

from umbel.errors import UsageError
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.ir.request import Completion


@dataclass(frozen=True, slots=True)
class OpenSample:
    """A completion that is not finished: its number `sample`, its tokens so far and how many it may have (`limit`), and
    their log-probabilities where the row asks for them."""

    sample: int
    token_ids: tuple[int, ...]
    limit: int
    logprobs: tuple[TokenLogprobs, ...] | None = None


@dataclass(frozen=True, slots=True)
class Resumable:
    """What a row is taken up from: token ids and its place in the noise, never a text.

    `stream` keys the row's draws, which are those of its sample numbers and positions; `next_sample` is the first
    number that no fork of it has. `finished` are completions that are done, `open` those that are not. `scope` is what
    its KV depends on beside its tokens, as in Workload.
    """

    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    stream: int
    next_sample: int
    open: tuple[OpenSample, ...]
    finished: tuple[Completion, ...] = ()
    scope: int = 0

    def check_fits(self, context: int) -> None:
        """Raise UsageError where a model with a context of so many tokens could not go on with it."""
        longest = len(self.prompt_token_ids) + max(len(one.token_ids) for one in self.open)
        if longest + (self.params.max_tokens != 0) > context:
            raise UsageError(f"resume: {longest:,} tokens leave no room for another in a context of {context:,}")

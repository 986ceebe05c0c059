"""Scores of continuations, and the choice between some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, fsum, inf, nan

import numpy as np

from umbel.ir.limits import refuse, shown
from umbel.ir.request import Output, RowError


@dataclass(frozen=True, slots=True)
class Score:
    """How likely a continuation is behind its prompt: the log-probability of each of its tokens, and of all together.

    `error` is set, and `logprob` NaN, where it could not be scored.
    """

    logprob: float
    token_logprobs: tuple[float, ...]
    token_ids: tuple[int, ...]
    error: RowError | None = None

    @classmethod
    def of(cls, output: Output) -> Score:
        """The score of those tokens of a prompt whose log-probabilities its row asked for."""
        if output.error is not None:
            return cls.failed(output.error)
        found = [entry for entry in output.prompt_logprobs or () if entry is not None]
        each = tuple(entry.logprob for entry in found)
        return cls(fsum(each), each, tuple(entry.token_id for entry in found))

    @classmethod
    def failed(cls, error: RowError) -> Score:
        """A continuation that could not be scored."""
        return cls(nan, (), (), error)

    @property
    def mean(self) -> float:
        """The log-probability per token: what compares continuations of different lengths."""
        return self.logprob / len(self.token_logprobs) if self.token_logprobs else nan

    @property
    def perplexity(self) -> float:
        """The inverse of the mean probability of a token (the geometric mean); infinite beyond a float's range."""
        try:
            return exp(-self.mean)
        except OverflowError:
            return inf


@dataclass(frozen=True, slots=True)
class Chosen:
    """The most likely of some choices: the `choice`, its place `index`, and the `logprobs` and `probabilities` of all,
    in the order in which they were given; a calibrated choice is one by its probabilities, not its log-probability.

    `error` is set, and `index` -1, where there is none.
    """

    choice: str
    index: int
    logprobs: tuple[float, ...]
    probabilities: tuple[float, ...]
    error: RowError | None = None

    @classmethod
    def among(cls, choices: Sequence[str], scores: Sequence[Score], prior: Sequence[Score] = ()) -> Chosen:
        """The most likely choice by its score; the first of equal ones. With a `prior`, the scores of the same choices
        behind a prompt without content, each is held to that (contextual calibration: Zhao et al., ICML 2021)."""
        error = next((s.error for s in (*scores, *prior) if s.error is not None), None)
        if error is not None:
            return cls("", -1, (), (), error)
        logprobs = np.array([s.logprob for s in scores])
        weights = logprobs - np.array([s.logprob for s in prior]) if prior else logprobs
        shares = np.exp(weights - weights.max())
        shares /= shares.sum()
        index = int(weights.argmax())
        return cls(choices[index], index, tuple(logprobs.tolist()), tuple(shares.tolist()))


def check_choices(choices: Sequence[str], token_ids: Sequence[Sequence[int]]) -> None:
    """Raise InvalidRequest where the tokens of a choice are the beginning of another's: whatever the model thinks, the
    longer one is never more likely, so that their probabilities say nothing. Also for no choices, or only one."""
    if len(choices) < 2:
        refuse("invalid_value", "choices", f"choices has {len(choices)} entries: give at least 2")
    order = sorted(range(len(choices)), key=lambda i: tuple(token_ids[i]))
    for one, other in pairwise(order):
        if list(token_ids[other][: len(token_ids[one])]) == list(token_ids[one]):
            message = (
                f"choice {shown(choices[one])} is the beginning of choice {shown(choices[other])}, token for token: it "
                "would always be the likelier; end all choices with the same mark, such as a line end"
            )
            refuse("invalid_value", "choices", message)

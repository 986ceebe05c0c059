"""A step that a loop has under way, and what comes out of one."""

from __future__ import annotations

from dataclasses import dataclass

from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.request import Output
from umbel.ir.sampled import Drawing, Finish
from umbel.ir.step import Step
from umbel.ir.token_masks import DrawMasks
from umbel.runner.base import Wait


@dataclass(frozen=True, slots=True)
class Flight:
    """A step that is under way, who draws in it and from which tokens (None: any), and what waits for its result."""

    step: Step
    drawing: Drawing
    masks: DrawMasks | None
    wait: Wait


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids that a sample of a row has got since the last time; with the last ones, how it ended. `given`: they
    were not drawn, but appended. `logprobs`: theirs, where the row asks for them."""

    row: int
    sample: int
    token_ids: tuple[int, ...]
    finish: Finish | None = None
    given: bool = False
    logprobs: tuple[TokenLogprobs, ...] = ()


Event = Tokens | Output


def newest(collected: tuple[TokenLogprobs, ...] | None, finish: Finish | None, count: int) -> tuple[TokenLogprobs, ...]:
    """The log-probabilities of the last `count` tokens of a sample, of which those `collected` are known: none, once it
    has ended, as its end took them along."""
    return ((collected if finish is None else finish.logprobs) or ())[-count:]

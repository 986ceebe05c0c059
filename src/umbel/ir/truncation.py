"""Prompts that are longer than their room: refused, skipped, or cut on one side or in the middle."""

from __future__ import annotations

from collections.abc import Sequence

from umbel.errors import InvalidRequest
from umbel.ir.params import SamplingParams

Ids = Sequence[int]


def most_tokens(params: SamplingParams, context: int) -> int:
    """The most tokens that the prompt of a row may have which has a `truncation`: its `truncate_prompt_tokens`, at most
    what leaves room for its `max_tokens` in the context, or for half of the context where they are more."""
    wanted = max(1, params.min_tokens, params.max_tokens or 0)
    most = max(context - wanted, context // 2)
    asked = params.truncate_prompt_tokens
    return most if asked is None or asked < 0 else min(asked, most)


def cut(ids: Ids, most: int, truncation: str, bos: int | None = None) -> Ids:
    """At most so many of a prompt's tokens. On the "left" the first ones are left out, but for a `bos` that begins it,
    on the "right" the last ones, in the "middle" those between two halves."""
    if len(ids) <= most:
        return ids
    if truncation == "right":
        return ids[:most]
    head = (most + 1) // 2 if truncation == "middle" else min(most, int(bos is not None and ids[0] == bos))
    return [*ids[:head], *ids[len(ids) - (most - head) :]]


def skips(ids: Ids, params: SamplingParams, context: int) -> bool:
    """Whether a row is to be left out, as it asks for where its prompt is too long."""
    return params.truncation == "skip" and len(ids) > most_tokens(params, context)


def fitted(ids: Ids, params: SamplingParams, context: int, bos: int | None) -> Ids:
    """A prompt as it is run: cut where its row asks for that. Raises InvalidRequest where it is too long and may not be
    cut."""
    truncation = params.truncation
    if truncation is None or truncation == "skip":
        return ids
    most = most_tokens(params, context)
    if truncation == "error" and len(ids) > most:
        raise long_prompt(len(ids), most)
    return cut(ids, most, truncation, bos)


def long_prompt(n_tokens: int, most: int) -> InvalidRequest:
    """The error of a prompt of more tokens than its row accepts."""
    message = f"the prompt has {n_tokens} tokens; truncate_prompt_tokens and the context leave it {most}"
    return InvalidRequest("context_length_exceeded", message, "prompt")

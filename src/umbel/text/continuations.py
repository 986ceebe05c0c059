"""Tokenises continuations behind their prompts, split as lm-evaluation-harness splits them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from umbel.ir.limits import check_room, check_token_ids, refuse

Encode = Callable[[Sequence[str]], Sequence[Sequence[int]]]


@dataclass(frozen=True, slots=True)
class Continued:
    """A prompt and a continuation as token ids: the first `n_prompt` of `ids` are the prompt's."""

    ids: Sequence[int]
    n_prompt: int

    @property
    def continuation(self) -> Sequence[int]:
        """The ids of the continuation."""
        return self.ids[self.n_prompt :]

    def check(self, width: int, context: int) -> Continued:
        """Raise InvalidRequest where there is nothing to score, or it does not fit a model with a vocabulary of `width`
        and a `context` of so many tokens."""
        if self.n_prompt == 0:
            refuse("empty_prompt", "prompt", "the prompt has no tokens: nothing can be scored behind it")
        if len(self.ids) <= self.n_prompt:
            refuse("empty_continuation", "continuations", "the continuation has no tokens of its own: nothing to score")
        check_token_ids(self.ids[: self.n_prompt], width)
        check_token_ids(self.continuation, width, "continuations")
        check_room(len(self.ids), 0, context, 0)
        return self


class PromptText:
    """A prompt as text, whose tokens all its continuations share.

    White space at its end goes to the continuation, as most tokenizers join it to the next word. Both are tokenised
    together, as the model saw such texts; what comes behind as many tokens as the prompt has alone is the
    continuation's. None of it is left where a token at their edge took the whole continuation in.
    """

    def __init__(self, encode: Encode, text: str):
        self._encode, self._text = encode, text
        head = text.rstrip()
        self.ids: Sequence[int] = encode([head])[0] if head else ()

    def behind(self, continuations: Sequence[str]) -> list[Continued]:
        """The prompt with each of some continuations."""
        own, whole = self.ids, self._encode([self._text + one for one in continuations])
        return [Continued([*own, *ids[len(own) :]], len(own)) for ids in whole]

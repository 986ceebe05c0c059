"""From prompts and continuations as callers have them to token ids; faults are kept beside what is fine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from umbel.engine.intake import Intake, Prompt, text_of
from umbel.errors import InvalidRequest
from umbel.ir.contain import as_refusal, concerns_row
from umbel.ir.limits import check_chars, check_prompt_ids
from umbel.text.continuations import Continued, PromptText

Continuation = str | Sequence[int]
Pair = Callable[[Continuation], Continued]
Result = TypeVar("Result")


class Pairing:
    """Tokenises and checks prompts together with what is scored behind them, for one model."""

    def __init__(self, intake: Intake):
        self.intake = intake
        spec = intake.model.spec
        self._width, self._context = spec.vocab_size, spec.max_positions

    def pairs(
        self, prompt: Prompt, rendered: str | InvalidRequest | None, continuations: Sequence[Continuation] | None
    ) -> list[Continued | InvalidRequest]:
        """A prompt (`rendered`: its text, if it is a conversation) with each of its continuations, or why one cannot be
        scored; None: a prompt whose own tokens are, behind the first."""
        if continuations is None:
            return [_contained(lambda: self._alone(prompt, rendered))]
        pair = _contained(lambda: self._pair(prompt, rendered))
        if isinstance(pair, InvalidRequest):
            return [pair] * len(continuations)
        return [_contained(lambda one=one: pair(one).check(self._width, self._context)) for one in continuations]

    def _alone(self, prompt: Prompt, rendered: str | InvalidRequest | None) -> Continued:
        ids = self._ids(prompt, rendered)
        return Continued(ids, min(len(ids), 1)).check(self._width, self._context)

    def _pair(self, prompt: Prompt, rendered: str | InvalidRequest | None) -> Pair:
        """What puts a continuation behind a prompt."""
        text = text_of(prompt) if rendered is None else None
        if text is not None:
            self._check_chars(text)
            return self._behind_text(text)
        ids = self._ids(prompt, rendered)
        return lambda one: Continued([*ids, *self._own_ids(one)], len(ids))

    def _behind_text(self, text: str) -> Pair:
        prompt = PromptText(self.intake.tokenizer.encode, text)

        def pair(one: Continuation) -> Continued:
            if isinstance(one, str):
                self._check_chars(one)
                return prompt.behind([one])[0]
            ids = self.intake.ids_of(text)
            return Continued([*ids, *self._own_ids(one)], len(ids))

        return pair

    def _own_ids(self, one: Continuation) -> Sequence[int]:
        """The ids of a continuation that is tokenised by itself."""
        ids = self.intake.tokenizer.encode([one], add_special_tokens=False)[0] if isinstance(one, str) else one
        check_prompt_ids(ids)
        return ids

    def _ids(self, prompt: Prompt, rendered: str | InvalidRequest | None) -> Sequence[int]:
        if isinstance(rendered, InvalidRequest):
            raise rendered
        text = text_of(prompt) if rendered is None else rendered
        self._check_chars(text or "")
        if rendered is not None:
            return self.intake.tokenizer.encode_rendered([rendered])[0]
        ids = self.intake.ids_of(prompt)
        check_prompt_ids(ids)
        return ids

    def _check_chars(self, text: str) -> None:
        check_chars(len(text), self._context)


def _contained(act: Callable[[], Result]) -> Result | InvalidRequest:
    """The result, or the fault that is the caller's row's alone."""
    try:
        return act()
    except BaseException as error:
        if not concerns_row(error):
            raise
        return as_refusal(error, "reading")

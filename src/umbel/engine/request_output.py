"""Answers as callers see them, in vLLM's shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from umbel.errors import RowFailed
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.request import Completion, Output, RowError
from umbel.text.tokenizer import Tokenizer


class NoOutputs(tuple[Completion, ...]):
    """The completions of a row that failed: none, and a look at one says why."""

    request_id: str
    error: RowError

    @classmethod
    def of(cls, request_id: str, error: RowError) -> NoOutputs:
        """The completions of a row that failed with an error."""
        found = cls()
        found.request_id, found.error = request_id, error
        return found

    def __getitem__(self, place: object) -> NoReturn:
        raise RowFailed(
            f"prompt {self.request_id} has no answer: {self.error.code}: {self.error.message}; look at .error first, "
            "or call with on_error='raise'"
        )


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """The answer to one prompt, in vLLM's shape; `error` is set, and `outputs` empty, when the row could not be run.

    `prompt` is the text, of a chat the rendered one; None where token ids were given. The log-probabilities of a place
    are mappings of token ids, as in vLLM (`logprobs[place][token_id].logprob`), and records (`.token_id`, `.top`).
    `vector`: what a prompt of a session got that wanted one (`pooling_params`).
    What vLLM has besides is there and None: there are no adapters and encoders, and no times of single rows.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: tuple[Completion, ...]
    finished: bool = True
    error: RowError | None = None
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    vector: tuple[float, ...] | None = None

    @classmethod
    def of(
        cls, request_id: int, prompt: str | None, ids: list[int], output: Output, tokenizer: Tokenizer | None
    ) -> RequestOutput:
        """An answer of the engine, to the prompt with these token ids."""
        if output.error is not None:
            return cls.failed(str(request_id), prompt, output.error, ids)
        if tokenizer is not None:
            for entries in (output.prompt_logprobs, *(one.logprobs for one in output.outputs)):
                _name_tokens(entries or (), tokenizer)
        return cls(str(request_id), prompt, ids, output.outputs, True, None, output.prompt_logprobs, output.vector)

    @classmethod
    def failed(cls, request_id: str, prompt: str | None, error: RowError, ids: Sequence[int] = ()) -> RequestOutput:
        """The answer to a prompt that has none."""
        return cls(request_id, prompt, list(ids), NoOutputs.of(request_id, error), error=error)

    @property
    def metrics(self) -> None:
        """None: times of single rows are not taken."""

    @property
    def lora_request(self) -> None:
        """None: there are no adapters."""

    @property
    def encoder_prompt(self) -> None:
        """None: no model here has an encoder."""

    @property
    def encoder_prompt_token_ids(self) -> None:
        """None: no model here has an encoder."""

    @property
    def num_cached_tokens(self) -> None:
        """None: a run that rows share is computed once for all of them, and belongs to none."""


def _name_tokens(entries: Sequence[TokenLogprobs | None], tokenizer: Tokenizer) -> None:
    """Note the texts of tokens in their entries, in place, as rows share these."""
    new = [one for one in entries if one is not None and not one.texts]
    ids = list(dict.fromkeys(token for one in new for token in one))
    texts = dict(zip(ids, (raw.decode("utf-8", "replace") for raw in tokenizer.token_bytes(ids)), strict=True))
    for one in new:
        one.name(texts)

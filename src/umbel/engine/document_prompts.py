"""Prompts that a caller gives with their documents, as token ids with the places of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from umbel.errors import InvalidRequest
from umbel.ir.contain import as_refusal, concerns_row
from umbel.ir.documents import check_spans
from umbel.ir.params import SamplingParams
from umbel.text.documents import Encode, TextParts, TokenParts, encode_parts
from umbel.text.tokenizer import Tokenizer


class PromptReader(Protocol):
    """The part of an intake that is used here; `reuses`: documents are computed apart."""

    reuses: bool

    @property
    def tokenizer(self) -> Tokenizer: ...

    def ids_of(self, prompt: Any) -> Sequence[int]:
        """The token ids of a prompt that is no conversation."""
        ...


def parts_of_all(
    intake: PromptReader, prompts: Sequence[Any], params: Sequence[SamplingParams], faults: dict[int, Any]
) -> dict[int, TokenParts]:
    """The prompts with documents, by number; why one cannot be read is put among the `faults`."""
    found: dict[int, TokenParts] = {}
    for i, prompt in enumerate(prompts):
        if isinstance(prompt, Mapping) and prompt.get("documents") and i not in faults:
            try:
                found[i] = _parts_of(intake, prompt, params[i])
            except BaseException as error:
                if not concerns_row(error):
                    raise
                faults[i] = as_refusal(error, "reading documents")
    return found


def encode_alone(tokenizer: Tokenizer) -> Encode:
    """Gives the token ids of texts without the special tokens that begin or end one."""
    return partial(tokenizer.encode, add_special_tokens=False)


def _parts_of(intake: PromptReader, prompt: Mapping[str, Any], params: SamplingParams) -> TokenParts:
    """The tokens of a prompt with documents: places in its text, or in its token ids."""
    if not intake.reuses:
        message = "documents of a prompt are read by technique='turbo-rag' alone; leave them out"
        raise InvalidRequest("unsupported_parameter", message, "documents")
    text, spans = prompt.get("prompt"), prompt["documents"]
    if isinstance(text, str) and "prompt_token_ids" not in prompt:
        parts = TextParts(text, check_spans(spans, len(text), params, "character"))
        return encode_parts(intake.tokenizer.encode, encode_alone(intake.tokenizer), [parts])[0]
    ids = list(intake.ids_of(prompt))
    return TokenParts(ids, check_spans(spans, len(ids), params))

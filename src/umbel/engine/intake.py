"""From what a caller gives as prompts to a workload, with the answers of those that cannot be run."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from umbel.engine.document_prompts import parts_of_all
from umbel.engine.request_output import RequestOutput
from umbel.errors import InvalidRequest, UsageError
from umbel.ir.adapter import check_adapter, names_of, scopes_of
from umbel.ir.chat import CHAT_FIELDS, Chat, chat_options
from umbel.ir.contain import as_refusal, concerns_row, row_error
from umbel.ir.documents import Documents
from umbel.ir.limits import NO_WORDS, check_chars, check_prompt_ids, check_room, check_token_ids, refuse, shown
from umbel.ir.params import SamplingParams
from umbel.ir.pooling import PoolingParams
from umbel.ir.prompts import check_messages
from umbel.ir.randomness import key_of
from umbel.ir.request import Completion
from umbel.ir.row_techniques import RowTechniques
from umbel.ir.soft_prompt import SoftPrompts
from umbel.ir.spec import ModelSpec
from umbel.ir.truncation import fitted, skips
from umbel.ir.workload import Workload
from umbel.text.tokenizer import Tokenizer

Prompt = str | Sequence[int] | Mapping[str, Any]
Conversation = Sequence[Mapping[str, Any]]
Params = SamplingParams | PoolingParams | Mapping[str, Any]
"""Sampling parameters, or their fields as an object; pooling parameters where a vector is wanted."""

_PARTS = frozenset({"prompt", "prompt_token_ids", "messages"})
_OF_PROMPTS = _PARTS | {"documents"}
_OF_CHATS = _PARTS | CHAT_FIELDS
_MEDIA = frozenset({"multi_modal_data", "multi_modal_uuids", "mm_processor_kwargs", "prompt_embeds"})
_PROMPT_KINDS = "give a string, token ids or an object with prompt, prompt_token_ids or messages"


class TokenizedModel(Protocol):
    """What prompts are checked against."""

    @property
    def directory(self) -> Path: ...

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def tokenizer(self) -> Tokenizer | None: ...

    @property
    def techniques(self) -> RowTechniques: ...

    def add_adapter(self, name: str, directory: str) -> None: ...


class Intake:
    """Tokenises and checks prompts for one model. `first_key` keys the draws of the next prompt without a key of its
    own; running prompts moves it behind them, so that calls go on drawing. `reuses`: documents are computed apart."""

    def __init__(self, model: TokenizedModel, *, reuses: bool = False):
        self.model, self.reuses = model, reuses
        self.first_key = 0
        self.defaults = SamplingParams(**dict(model.spec.sampling))
        self._checked: SamplingParams | None = None  # whose tokens were looked at last: prompts share what they ask for

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; raises UsageError when the directory has none."""
        if self.model.tokenizer is None:
            raise UsageError(f"{self.model.directory} has no tokenizer.json: give prompts as token ids")
        return self.model.tokenizer

    def take(
        self,
        prompts: Prompt | Iterable[Prompt],
        params: Params | Sequence[Params] | None,
        keys: Sequence[int | str] | None = None,
    ) -> Batch:
        """One prompt or several, with params for all or for each, and what keys their draws: `keys`, else numbers from
        `first_key` on."""
        prompts = as_prompts(prompts)
        each = params_for(len(prompts), self.defaults if params is None else params)
        numbers = range(self.first_key, self.first_key + len(prompts))
        draw_keys = numbers if keys is None else _keys_for(prompts, keys)
        rendered = self.render(prompts)
        apart = parts_of_all(self, prompts, each, rendered)
        ids = [
            self._ids_or_error(apart[i].ids if i in apart else prompt, p, rendered.get(i))
            for i, (prompt, p) in enumerate(zip(prompts, each, strict=True))
        ]
        self._warn_of_stops(each)
        good = [
            i
            for i, found in enumerate(ids)
            if not isinstance(found, InvalidRequest) and not skips(found, each[i], self.context_of(each[i]))
        ]
        asked = [each[i] for i in good]
        scope = scopes_of(asked, names_of(self.model.spec.adapters))
        workload = Workload.of([ids[i] for i in good], asked, good, [draw_keys[i] for i in good], scope)
        if apart:
            spans = [apart[i].documents if i in apart else () for i in good]
            workload = replace(workload, documents=Documents.of(spans, workload.offsets, workload.tokens))
        texts = [found if isinstance(found := rendered.get(i), str) else text_of(p) for i, p in enumerate(prompts)]
        refused = [_unrun(i, texts[i], ids[i], each[i].n) for i in sorted(set(range(len(ids))) - set(good))]
        return Batch(workload, texts, refused)

    def _warn_of_stops(self, params: Sequence[SamplingParams]) -> None:
        stops = {stop for p in {id(p): p for p in params}.values() if p.skip_special_tokens for stop in p.stop}
        if stops and self.model.tokenizer is not None:
            for note in self.model.tokenizer.decoder.notes_on_stops(sorted(stops)):
                warnings.warn(note, stacklevel=2)

    def render(self, prompts: Sequence[Prompt]) -> dict[int, str | InvalidRequest]:
        """The texts of the conversations among the prompts, or why one of the prompts has none; together, which is
        quicker."""
        found: dict[int, str | InvalidRequest] = {}
        chats = {}
        for i, prompt in enumerate(prompts):
            if isinstance(prompt, Mapping):
                try:
                    _check_parts(prompt)
                    if "messages" in prompt:
                        chats[i] = Chat(check_messages(prompt["messages"]), chat_options(prompt))
                except InvalidRequest as error:
                    found[i] = error
        if chats:
            found |= zip(chats, self.tokenizer.render_all(list(chats.values())), strict=True)
        return found

    def _ids_or_error(
        self, prompt: Prompt, params: SamplingParams, rendered: str | InvalidRequest | None
    ) -> Sequence[int] | InvalidRequest:
        if isinstance(rendered, InvalidRequest):
            return rendered
        try:
            text = text_of(prompt) if rendered is None else rendered
            context = self.context_of(params)
            if params.truncation in (None, "error"):
                check_chars(len(text or ""), context)
            ids = self.ids_of(prompt) if rendered is None else self.tokenizer.encode_rendered([rendered])[0]
            ids = self.model.spec.pooler.read(ids)
            ids = fitted(ids, params, context, self.model.spec.bos_token_id)
            if not skips(ids, params, context):
                self._check(ids, params)
        except BaseException as error:
            if not concerns_row(error):
                raise
            return as_refusal(error, "reading")
        return ids

    def context_of(self, params: SamplingParams) -> int:
        """The most tokens of a row's prompt and answer together."""
        return self.model.spec.max_positions - SoftPrompts.of(self.model.spec.adapters).before(params)

    def ids_of(self, prompt: Prompt) -> Sequence[int]:
        """The token ids of a prompt that is no conversation. Raises InvalidRequest where it has none."""
        if isinstance(prompt, str):
            return self.tokenizer.encode([prompt])[0]
        if isinstance(prompt, Mapping):
            return self.ids_of(_inner_prompt(prompt))
        if isinstance(prompt, np.ndarray):
            return cast("list[int]", prompt.tolist())
        if not isinstance(prompt, Sequence) or isinstance(prompt, (bytes, bytearray)):
            raise InvalidRequest("invalid_type", f"the prompt is a {type(prompt).__name__}: {_PROMPT_KINDS}", "prompt")
        return prompt

    def _check(self, ids: Sequence[int], params: SamplingParams) -> None:
        check_prompt_ids(ids)
        if params.lora is not None:
            check_adapter(params.lora, names_of(self.model.spec.adapters))
        check_token_ids(ids, self.model.spec.vocab_size)
        self._check_tokens(params)
        self.model.spec.pooler.check(params.pooling_params)
        SoftPrompts.of(self.model.spec.adapters).check(params)
        self.model.techniques.check(params)
        if params.stop and self.model.tokenizer is None:
            raise InvalidRequest("unsupported_parameter", "stop strings need a tokenizer; use stop_token_ids", "stop")
        if params.structured_outputs is not None and self.model.tokenizer is None:
            raise InvalidRequest("unsupported_parameter", "structured_outputs need a tokenizer", "structured_outputs")
        check_room(len(ids), params.min_tokens, self.context_of(params), params.max_tokens)

    def _check_tokens(self, params: SamplingParams) -> None:
        """Raise InvalidRequest for tokens, or words, that the model has not."""
        if params.names_tokens and params is not self._checked:
            params.check_ids(self.model.spec.vocab_size)
            if params.bad_words and self.model.tokenizer is None:
                refuse("unsupported_parameter", "bad_words", NO_WORDS)
            if params.bad_words:
                self.tokenizer.word_runs.check(params.bad_words, self.model.spec.vocab_size)
            self._checked = params


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts on their way in: what can be run, their texts where given, and the answers of those that are not."""

    workload: Workload
    texts: list[str | None]
    refused: list[RequestOutput]


def as_prompts(prompts: Prompt | Iterable[Prompt]) -> Sequence[Prompt]:
    """One prompt as a list of one; what can only be gone through once (a generator) as a list of its prompts."""
    if isinstance(prompts, (str, bytes, bytearray, Mapping)):
        return [cast(Prompt, prompts)]
    if isinstance(prompts, Set) or not isinstance(prompts, Iterable):
        raise UsageError(f"prompts: a {type(prompts).__name__} has no order of prompts; give a list")
    if not isinstance(prompts, (Sequence, np.ndarray)):
        prompts = list(prompts)
    return [prompts] if len(prompts) > 0 and isinstance(prompts[0], (int, np.integer)) else prompts


def params_for(count: int, params: Params | Sequence[Params]) -> Sequence[SamplingParams]:
    """The parameters of each of `count` prompts. Raises UsageError for a list of another length."""
    if isinstance(params, (SamplingParams, PoolingParams, Mapping)):
        return [_made(params)] * count
    if len(params) != count:
        raise UsageError(f"{count} prompts but {len(params)} sampling params: give one, or one for each")
    return [_made(one) for one in params]


def _made(params: Params) -> SamplingParams:
    if isinstance(params, PoolingParams):
        return SamplingParams(pooling_params=params)
    return params if isinstance(params, SamplingParams) else SamplingParams(**params)


def _keys_for(prompts: Sequence[Prompt], keys: Sequence[int | str]) -> Sequence[int]:
    """Raises UsageError for keys of another number, or one twice: two rows would draw alike."""
    if isinstance(keys, str) or len(keys) != len(prompts):
        count = "one text" if isinstance(keys, str) else f"{len(keys)} keys"
        raise UsageError(f"{len(prompts)} prompts but {count}: give a key for each prompt")
    seen: dict[int, int] = {}
    for i, key in enumerate(keys):
        first = seen.setdefault(key_of(key), i)
        if first != i:
            raise UsageError(f"key {key!r:.80} is given to prompts {first} and {i}: give each prompt a key of its own")
    return list(seen)


def _inner_prompt(prompt: Mapping[str, Any]) -> Any:
    """The token ids or else the text of a prompt given as an object."""
    for name in ("prompt_token_ids", "prompt"):
        if name in prompt:
            return prompt[name]
    raise InvalidRequest("missing_required_parameter", f"the prompt has no text: {_PROMPT_KINDS}", "prompt")


def _check_parts(prompt: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for a part of a prompt that would not be read."""
    if "messages" in prompt and (other := prompt.keys() & {"prompt", "prompt_token_ids"}):
        refuse("invalid_value", min(other), f"the prompt has messages and {min(other)}: give one of them")
    for name, value in prompt.items() if prompt.keys() & _PARTS else ():
        nothing = value is None or (isinstance(value, str | Sequence | Mapping) and not value)
        if name not in (_OF_CHATS if "messages" in prompt else _OF_PROMPTS) and not nothing:
            hint = "images, audio and embeddings are not supported" if name in _MEDIA else _PROMPT_KINDS
            refuse("unsupported_parameter", str(name), f"the prompt has {shown(name)}, which is not read: {hint}")


def text_of(prompt: Prompt) -> str | None:
    """The text of a prompt, None where it is given otherwise."""
    if isinstance(prompt, Mapping):
        prompt = prompt.get("prompt", ())
    return prompt if isinstance(prompt, str) else None


def _unrun(row: int, text: str | None, found: Sequence[int] | InvalidRequest, n: int) -> RequestOutput:
    """The answer to a prompt that is not run: its error, or empty ones where it is skipped."""
    if isinstance(found, InvalidRequest):
        return RequestOutput.failed(str(row), text, row_error(found))
    return RequestOutput(str(row), text, list(found), tuple(Completion(i, "", (), "length") for i in range(n)))

"""`LLM`: load a model once, give it every prompt at once, get answers in input order or as they finish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from umbel.config import EngineConfig
from umbel.engine.build import Model, build_loop, build_store, machine_of, plan_workload
from umbel.engine.heard import heard_by
from umbel.engine.lessons import Lessons
from umbel.engine.loop import Loop
from umbel.engine.recorder import Recorder
from umbel.errors import InvalidRequest, UsageError
from umbel.ir.limits import check_prompt_ids, check_room, check_token_ids
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.prompts import check_messages
from umbel.ir.report import Stats
from umbel.ir.request import Completion, Output, RowError
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.kv.store import KVStore
from umbel.tokenizer import Tokenizer

Prompt = str | Sequence[int] | Mapping[str, Any]
Conversation = Sequence[Mapping[str, Any]]

_PROMPT_KINDS = "give a string, token ids or an object with prompt, prompt_token_ids or messages"


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """The answer to one prompt, in vLLM's shape; `error` is set, and `outputs` empty, when the row could not be run."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: tuple[Completion, ...]
    finished: bool = True
    error: RowError | None = None


class LLM:
    """A loaded model.

    `model` is "demo", a directory or a hub id; the options are those of `EngineConfig`, None or "auto" meaning that the
    plan derives them; `profile` is told what the time goes into, which makes GPUs slower. Raises UsageError for an
    unknown option and ModelError for a model that cannot be loaded.
    """

    def __init__(self, model: str, profile: Recorder | None = None, **options: Any):
        self.config = EngineConfig.of(model, **options)
        if self.config.data_parallel_size > 1:
            raise UsageError("data_parallel_size: an LLM is one replica; use umbel.cluster.replicas.Replicas")
        self._model = Model(self.config)
        self._machine = machine_of(self._model.device)
        self._lessons = Lessons(self._model, self._machine)
        self._loop: Loop | None = None
        self._store: KVStore | None = None
        self._past = Stats()
        self.first_token: float | None = None  # when the first of all tokens was there, on the clock of time.monotonic
        self._spans = heard_by(profile, self._model)

    @property
    def spec(self) -> ModelSpec:
        """The model's shape."""
        return self._model.spec

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; raises UsageError when the directory has none."""
        if self._model.tokenizer is None:
            raise UsageError(f"{self._model.directory} has no tokenizer.json: give prompts as token ids")
        return self._model.tokenizer

    def generate(
        self, prompts: Prompt | Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> list[RequestOutput]:
        """Answers in the order of the prompts: strings, lists of token ids, {"prompt_token_ids": ids} or chats
        ({"messages": [...]}). A prompt that cannot be run gives a RequestOutput with `error`; the others go on."""
        found = {int(output.request_id): output for output in self.stream(prompts, params)}
        return [found[i] for i in range(len(found))]

    def stream(
        self, prompts: Prompt | Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> Iterator[RequestOutput]:
        """Answers as rows finish; `request_id` is the prompt's place. Closing the generator abandons the rest."""
        batch = self._tokenise(_as_list(prompts), params)
        yield from batch.refused
        for output in self.execute(batch.workload):
            row = int(batch.workload.keys[output.row])
            ids = batch.workload.prompt(output.row).tolist()
            yield RequestOutput(str(row), batch.texts[row], ids, output.outputs, error=output.error)

    def chat(
        self,
        conversations: Conversation | Sequence[Conversation],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """Like `generate`, for one conversation (a list of messages) or a list of them."""
        single = bool(conversations) and isinstance(conversations[0], Mapping)
        return self.generate([{"messages": c} for c in ([conversations] if single else conversations)], params)

    def plan(
        self, prompts: Prompt | Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> Plan:
        """What `generate` would do: forest, order, budgets with their reasons, estimates."""
        return self.plan_for(self._tokenise(_as_list(prompts), params).workload)

    def plan_for(self, workload: Workload) -> Plan:
        """What `execute` would do with a tokenised workload."""
        return plan_workload(self._model, workload, self._machine, self._lessons.known())

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        """Run a tokenised workload whose rows are valid, by its plan; Outputs come as rows finish. One at a time."""
        if len(workload) == 0:
            return
        plan = plan or self.plan_for(workload)
        spans, known = self._spans, self._lessons.known()
        store = build_store(self._model, plan.kv_pages, plan.page_size, self._take_store())
        loop = self._loop = spans.lap("building", build_loop(self._model, workload, plan, store, known, spans))
        try:
            yield from loop.run()
        finally:
            self._store = store
            self._past, self._loop = self._past.plus(loop.stats()), None
            self.first_token = self.first_token or loop.first_token
            curves = loop.scheduler.lengths.learned_curves(plan.templates)
            spans.lap("learning", self._lessons.learn(loop.meter, curves))

    def _take_store(self) -> KVStore | None:
        """The KV memory of the last run, for the next: to get that much anew costs the system seconds a gigabyte."""
        store, self._store = self._store, None
        return store

    def stats(self) -> Stats:
        """Totals over everything this object has run, live."""
        return self._past if self._loop is None else self._past.plus(self._loop.stats())

    def _tokenise(self, prompts: Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None) -> _Batch:
        each = _params_for(prompts, params)
        ids = [self._ids_or_error(prompt, p) for prompt, p in zip(prompts, each, strict=True)]
        good = [i for i, found in enumerate(ids) if not isinstance(found, InvalidRequest)]
        workload = Workload.of([ids[i] for i in good], [each[i] for i in good], good)
        texts = [_text_of(prompt) for prompt in prompts]
        refused = [_refusal(i, texts[i], found) for i, found in enumerate(ids) if isinstance(found, InvalidRequest)]
        return _Batch(workload, texts, refused)

    def _ids_or_error(self, prompt: Prompt, params: SamplingParams) -> Sequence[int] | InvalidRequest:
        try:
            ids = self._ids(prompt)
            self._check(ids, params)
        except InvalidRequest as error:
            return error
        return ids

    def _ids(self, prompt: Prompt) -> Sequence[int]:
        if isinstance(prompt, str):
            return self.tokenizer.encode([prompt])[0]
        if isinstance(prompt, Mapping):
            if "messages" in prompt:
                return self.tokenizer.encode_chat([check_messages(prompt["messages"])])[0]
            return self._ids(_inner_prompt(prompt))
        if isinstance(prompt, np.ndarray):
            return cast("list[int]", prompt.tolist())
        if not isinstance(prompt, Sequence):
            raise InvalidRequest("invalid_type", f"the prompt is a {type(prompt).__name__}: {_PROMPT_KINDS}", "prompt")
        return prompt

    def _check(self, ids: Sequence[int], params: SamplingParams) -> None:
        check_prompt_ids(ids)
        check_token_ids(ids, self.spec.vocab_size)
        check_token_ids(params.stop_token_ids, self.spec.vocab_size, "stop_token_ids")
        if params.stop and self._model.tokenizer is None:
            raise InvalidRequest("unsupported_parameter", "stop strings need a tokenizer; use stop_token_ids", "stop")
        check_room(len(ids), params.min_tokens, self.spec.max_positions)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Prompts on their way in: what can be run, their texts where given, and the answers of those refused."""

    workload: Workload
    texts: list[str | None]
    refused: list[RequestOutput]


def _as_list(prompts: Prompt | Sequence[Prompt]) -> Sequence[Prompt]:
    """One prompt as a list of one."""
    if isinstance(prompts, (str, Mapping)) or (len(prompts) > 0 and isinstance(prompts[0], (int, np.integer))):
        return [prompts]
    return prompts


def _params_for(
    prompts: Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None
) -> Sequence[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * len(prompts)
    if len(params) != len(prompts):
        raise UsageError(f"{len(prompts)} prompts but {len(params)} sampling params: give one, or one for each")
    return params


def _inner_prompt(prompt: Mapping[str, Any]) -> Any:
    """The token ids or else the text of a prompt given as an object."""
    for name in ("prompt_token_ids", "prompt"):
        if name in prompt:
            return prompt[name]
    raise InvalidRequest("missing_required_parameter", f"the prompt has no text: {_PROMPT_KINDS}", "prompt")


def _text_of(prompt: Prompt) -> str | None:
    if isinstance(prompt, Mapping):
        prompt = prompt.get("prompt", ())
    return prompt if isinstance(prompt, str) else None


def _refusal(row: int, text: str | None, error: InvalidRequest) -> RequestOutput:
    reason = RowError(error.code, error.message, error.param, status=error.status)
    return RequestOutput(str(row), text, [], (), error=reason)

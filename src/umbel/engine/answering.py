"""The ways to ask an engine: prompts as callers have them go in, answers in vLLM's shape come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from os import fspath
from types import TracebackType
from typing import Any, Literal, NoReturn, TypeVar

from umbel.engine.adapting import new_adapters, with_adapters
from umbel.engine.chat_answers import ChatAnswers
from umbel.engine.hub_tokenizer import HubTokenizer
from umbel.engine.intake import Batch, Conversation, Intake, Params, Prompt, as_prompts, params_for
from umbel.engine.progress_line import progress_line
from umbel.engine.request_output import RequestOutput
from umbel.errors import InvalidRequest, UsageError, nearest
from umbel.foreign import METHODS
from umbel.ir.arrivals import Arrivals
from umbel.ir.chat import CHAT_FIELDS, chat_options
from umbel.ir.lora_request import LoRARequest, requests_for
from umbel.ir.neutral import check_neutral
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.report import Left, Stats
from umbel.ir.request import Output, RowError
from umbel.ir.spec import ModelSpec
from umbel.ir.stops import Stops
from umbel.ir.tally import ReplicaTally
from umbel.ir.workload import Workload
from umbel.plan.explain.shown import ShownPlan
from umbel.text.tokenizer import Tokenizer

A = TypeVar("A", bound="Answering")
Prompts = Prompt | Iterable[Prompt]
LoRA = LoRARequest | str
_KEYWORDS = ("lora_request", "sampling_params", "keys", "use_tqdm", "on_error")


class Answering(ABC):
    """Asks whatever plans and executes workloads."""

    intake: Intake
    keeps_unfinished = False

    @abstractmethod
    def plan_for(self, workload: Workload) -> Plan:
        """What `execute` would do with a tokenised workload."""

    @abstractmethod
    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        """Run a tokenised workload whose rows are valid, by its plan; Outputs come as rows finish. One at a time."""

    def execute_all(self, arrivals: Arrivals, stops: Stops | None = None) -> Iterator[tuple[int, Output]]:
        """Run workloads as they come, by their plans, one after the other. Outputs come as rows finish, each with the
        number of its workload and its row there. `stops` are obeyed where `keeps_unfinished` says so."""
        for number, (workload, plan) in enumerate(iter(partial(arrivals.take, wait=True), None)):
            for output in self.execute(workload, plan):
                yield number, output

    def left(self) -> Left:
        """What the rows that run have left to do; nothing is known here."""
        return Left()

    def replicas(self) -> tuple[ReplicaTally, ...]:
        """What each of several replicas has done so far; there is one."""
        return ()

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds, memory and processes."""

    def __enter__(self: A) -> A:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __getattr__(self, name: str) -> NoReturn:
        what = f": {METHODS[name]}" if name in METHODS else nearest(name, dir(type(self)))
        raise AttributeError(f"{type(self).__name__} has no {name!r}{what}")

    @property
    def spec(self) -> ModelSpec:
        """The model's shape."""
        return self.intake.model.spec

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; raises UsageError when the directory has none."""
        return self.intake.tokenizer

    @abstractmethod
    def stats(self) -> Stats:
        """Totals over everything this object has run, live."""

    def generate(
        self,
        prompts: Prompts,
        sampling_params: Params | Sequence[Params] | None = None,
        *,
        keys: Sequence[int | str] | None = None,
        use_tqdm: bool | Callable[..., Any] | None = None,
        on_error: Literal["return", "raise"] = "return",
        lora_request: LoRA | Sequence[LoRA | None] | None = None,
        **others: object,
    ) -> list[RequestOutput]:
        """Answers in the order of the prompts: strings, lists of token ids, {"prompt_token_ids": ids} or chats
        ({"messages": [...]}). A prompt that cannot be run gives a RequestOutput with `error`, and the others go on;
        with `on_error="raise"` the first such error is raised, of prompts that are at fault before any is run.

        A prompt whose params have a seed draws by that seed alone, wherever it stands. The others draw by the engine's
        seed and their key: one of `keys`, a different one for each prompt, so that a list cut into calls gives the
        answers of one call; without `keys`, their number in the life of this object, so that calls go on drawing.

        Progress is shown on terminals and in notebooks when it takes longer than two seconds; `use_tqdm=False` shows
        none, True shows it in logs too, and a class like tqdm makes the bar. `lora_request` is the adapter that prompts
        are computed with, one for all or one for each (None: none), by name or as vLLM's LoRARequest, which is loaded
        when it is new. `others` are keywords of vLLM's, taken where they ask for nothing (`priority=None`). Raises
        InvalidRequest, UsageError, ModelError for an adapter that does not belong to the model, and TypeError for a
        keyword that neither knows.
        """
        check_neutral("generate", others, _KEYWORDS)
        if on_error not in ("return", "raise"):
            raise UsageError(f"on_error={on_error!r}: must be 'return' or 'raise'")
        prompts, found = as_prompts(prompts), dict[int, RequestOutput]()
        if lora_request is not None:
            sampling_params = self._adapted(len(prompts), sampling_params, lora_request)
        stream = self.stream(prompts, sampling_params, keys=keys)
        with closing(stream), progress_line(use_tqdm, len(prompts), self) as tell:
            for output in stream:
                if output.error is not None and on_error == "raise":
                    raise _raisable(output.request_id, output.error)
                found[int(output.request_id)] = output
                tell()
        return [found[i] for i in range(len(found))]

    def stream(
        self,
        prompts: Prompts,
        sampling_params: Params | Sequence[Params] | None = None,
        *,
        keys: Sequence[int | str] | None = None,
    ) -> Generator[RequestOutput, None, None]:
        """Answers as rows finish; `request_id` is the prompt's place. Closing the generator abandons the rest."""
        batch = self.intake.take(prompts, sampling_params, keys)
        if any(params.pooling_params is not None for params in batch.workload.params):
            raise UsageError("pooling_params: embed, classify and encode give vectors; answers have none")
        if keys is None:
            self.intake.first_key += len(batch.texts)
        yield from batch.refused
        for row, ids, output in self._run_batch(batch):
            yield RequestOutput.of(row, batch.texts[row], ids, output, self.intake.model.tokenizer)

    def _run_batch(self, batch: Batch) -> Generator[tuple[int, list[int], Output], None, None]:
        """What comes of the prompts that can be run, as they finish: place, token ids and Output of each."""
        for output in self.execute(batch.workload):
            yield int(batch.workload.keys[output.row]), batch.workload.prompt(output.row).tolist(), output

    def chat(
        self,
        messages: Conversation | Iterable[Conversation],
        sampling_params: Params | Sequence[Params] | None = None,
        *,
        keys: Sequence[int | str] | None = None,
        use_tqdm: bool | Callable[..., Any] | None = None,
        on_error: Literal["return", "raise"] = "return",
        tool_choice: str | Mapping[str, Any] | None = None,
        tool_call_parser: str | None = None,
        reasoning_parser: str | None = None,
        **others: object,
    ) -> list[RequestOutput]:
        """Like `generate`, for one conversation (a list of messages) or several of them. The chat template is the
        model's; it is given `tools`, `documents` and the variables of `chat_template_kwargs`. The prompt opens the
        answer, unless `add_generation_prompt=False`; with `continue_final_message=True` the model goes on with the last
        message. `tool_call_parser` and `reasoning_parser` name formats (docs/chats.md; "auto": the template's): outputs
        have `tool_calls` and `reasoning_content` then, and `tool_choice` may ask for calls. `chat_template` and the
        like are taken where they ask for nothing."""
        several = messages if isinstance(messages, Sequence) else list(messages)
        if several and isinstance(several[0], Mapping):
            several = [several]
        beside = {name: others.pop(name) for name in CHAT_FIELDS & others.keys()}
        tools = chat_options(beside).tools or ()  # what is wrong for all of them is an error of the call
        prompts = [{"messages": one, **beside} for one in several]
        reading = ChatAnswers(tools, tool_choice, tool_call_parser, reasoning_parser, self._template)
        given = sampling_params if reading.whole else reading.params(sampling_params, self.intake.defaults)
        others |= {"keys": keys, "use_tqdm": use_tqdm, "on_error": on_error}
        found = self.generate(prompts, given, **others)  # type: ignore[arg-type]
        return found if reading.whole else [reading.read(output) for output in found]

    def _template(self) -> str | None:
        return self.tokenizer.template_text

    def add_adapter(self, name: str, directory: str) -> None:
        """Load an adapter in PEFT's layout, which prompts may name from now on. Raises UsageError where that cannot be
        done, ModelError for one that does not belong to the model."""
        self.intake.model.add_adapter(name, directory)

    def _adapted(self, count: int, params: Params | Sequence[Params] | None, given: object) -> list[SamplingParams]:
        """The parameters of each of `count` prompts with its adapter; those that are new are loaded."""
        requests = requests_for(given, count)
        for request in new_adapters(requests, self.spec.adapters):
            self.add_adapter(request.lora_name, fspath(request.lora_path))
        return with_adapters(params_for(count, self.intake.defaults if params is None else params), requests)

    def plan(self, prompts: Prompts, sampling_params: Params | Sequence[Params] | None = None) -> ShownPlan:
        """What `generate` would do: forest, order, budgets with their reasons, estimates. It prints as `umbel plan`
        does, in a few lines or all of them (`explain()`), and notebooks show its page."""
        return ShownPlan.of(self.plan_for(self.intake.take(prompts, sampling_params).workload))

    def get_tokenizer(self) -> HubTokenizer:
        """The tokenizer under transformers' names, as vLLM gives it: `encode`, `decode`, `batch_decode`,
        `apply_chat_template`, `eos_token_id`."""
        return HubTokenizer(self.tokenizer)

    def get_default_sampling_params(self) -> SamplingParams:
        """What prompts without parameters are sampled by: by what the model's generation_config.json states, as in
        vLLM; parameters that are given are taken as they are."""
        return self.intake.defaults


def _raisable(request_id: str, error: RowError) -> InvalidRequest:
    return InvalidRequest(error.code, f"prompt {request_id}: {error.message}", error.param, error.status)

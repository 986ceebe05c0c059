"""The ways to ask an engine: prompts as callers have them go in, answers in vLLM's shape come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TypeVar

from umbel.engine.intake import Conversation, Intake, Prompt, RequestOutput
from umbel.ir.arrivals import Arrivals
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.report import Left
from umbel.ir.request import Output
from umbel.ir.spec import ModelSpec
from umbel.ir.stops import Stops
from umbel.ir.workload import Workload
from umbel.text.tokenizer import Tokenizer

A = TypeVar("A", bound="Answering")


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

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds, memory and processes."""

    def __enter__(self: A) -> A:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def spec(self) -> ModelSpec:
        """The model's shape."""
        return self.intake.model.spec

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; raises UsageError when the directory has none."""
        return self.intake.tokenizer

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        keys: Sequence[int | str] | None = None,
    ) -> list[RequestOutput]:
        """Answers in the order of the prompts: strings, lists of token ids, {"prompt_token_ids": ids} or chats
        ({"messages": [...]}). A prompt that cannot be run gives a RequestOutput with `error`; the others go on.

        A prompt whose params have a seed draws by that seed alone, wherever it stands. The others draw by the engine's
        seed and their key: one of `keys`, a different one for each prompt, so that a list cut into calls gives the
        answers of one call; without `keys`, their number in the life of this object, so that calls go on drawing.
        """
        found = {int(output.request_id): output for output in self.stream(prompts, params, keys)}
        return [found[i] for i in range(len(found))]

    def stream(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        keys: Sequence[int | str] | None = None,
    ) -> Iterator[RequestOutput]:
        """Answers as rows finish; `request_id` is the prompt's place. Closing the generator abandons the rest."""
        batch = self.intake.take(prompts, params, keys)
        if keys is None:
            self.intake.first_key += len(batch.texts)
        yield from batch.refused
        for output in self.execute(batch.workload):
            row = int(batch.workload.keys[output.row])
            ids = batch.workload.prompt(output.row).tolist()
            yield RequestOutput.of(row, batch.texts[row], ids, output)

    def chat(
        self,
        conversations: Conversation | Sequence[Conversation],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        keys: Sequence[int | str] | None = None,
    ) -> list[RequestOutput]:
        """Like `generate`, for one conversation (a list of messages) or a list of them."""
        single = bool(conversations) and isinstance(conversations[0], Mapping)
        return self.generate([{"messages": c} for c in ([conversations] if single else conversations)], params, keys)

    def plan(
        self, prompts: Prompt | Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> Plan:
        """What `generate` would do: forest, order, budgets with their reasons, estimates."""
        return self.plan_for(self.intake.take(prompts, params).workload)

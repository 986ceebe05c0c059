"""`LLM`: load a model once, give it every prompt at once, get answers in input order or as they finish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from umbel.config import EngineConfig
from umbel.cost.devices import joined
from umbel.engine.build import Model, build_loop, build_store, plan_workload
from umbel.engine.device import machine_of
from umbel.engine.intake import Conversation, Intake, Prompt, RequestOutput
from umbel.engine.lessons import Lessons
from umbel.engine.loop import Loop
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.report import Stats
from umbel.ir.request import Output
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.kv.store import KVStore
from umbel.profile.attach import spans_for
from umbel.profile.recorder import Recorder
from umbel.text.tokenizer import Tokenizer


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
        self._machine = joined(machine_of(self._model.device), self.config.tensor_parallel_size)
        self._lessons = Lessons(self._model, self._machine)
        self._loop: Loop | None = None
        self._store: KVStore | None = None
        self._past = Stats()
        self.first_token: float | None = None  # when the first of all tokens was there, on the clock of time.monotonic
        self._intake = Intake(self._model)
        self._spans = spans_for(profile, self._model)

    @property
    def spec(self) -> ModelSpec:
        """The model's shape."""
        return self._model.spec

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; raises UsageError when the directory has none."""
        return self._intake.tokenizer

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
        batch = self._intake.take(prompts, params, keys)
        if keys is None:
            self._intake.first_key += len(batch.texts)
        yield from batch.refused
        for output in self.execute(batch.workload):
            row = int(batch.workload.keys[output.row])
            ids = batch.workload.prompt(output.row).tolist()
            yield RequestOutput(str(row), batch.texts[row], ids, output.outputs, error=output.error)

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
        return self.plan_for(self._intake.take(prompts, params).workload)

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
            curves = loop.scheduler.lengths.learned_curves()
            spans.lap("learning", self._lessons.learn(loop.meter, curves))

    def _take_store(self) -> KVStore | None:
        """The KV memory of the last run, for the next: to get that much anew costs the system seconds a gigabyte."""
        store, self._store = self._store, None
        return store

    def stats(self) -> Stats:
        """Totals over everything this object has run, live."""
        return self._past if self._loop is None else self._past.plus(self._loop.stats())

"""`LLM`: load a model once, give it every prompt at once, get answers in input order or as they finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from umbel.config import PAGE_SIZE, EngineConfig
from umbel.engine.inbox import Targets
from umbel.engine.intake import Intake
from umbel.engine.local import LocalEngine
from umbel.engine.pooling import Pooling
from umbel.engine.progress_line import loading_line
from umbel.engine.request_output import RequestOutput
from umbel.engine.session import Session
from umbel.ir.arrivals import Arrivals
from umbel.ir.plan import Plan
from umbel.ir.pooling import TASKS
from umbel.ir.report import Left, Stats
from umbel.ir.request import Output
from umbel.ir.stops import Stops
from umbel.ir.workload import Workload
from umbel.profile.attach import spans_for
from umbel.profile.recorder import Recorder
from umbel.runner.base import Runner

__all__ = ["LLM", "RequestOutput", "Session"]


class LLM(Pooling):
    """A loaded model.

    `model` is "demo", a directory or a hub id; the options are those of `EngineConfig`, None or "auto" meaning that the
    plan derives them. `profile` records what the time goes into, which makes GPUs slower. A `runner` computes the steps
    instead of the model's device, and the weights are not loaded; a test or a simulation gives one. `use_tqdm_on_load`
    shows how far loading is, as `use_tqdm` of `generate` does for prompts, and is off by itself. vLLM's options are
    taken where they ask for nothing. Raises UsageError for an unknown option and ModelError for a model that cannot be
    loaded. `close`, or leaving a `with` block, gives the memory back.
    """

    keeps_unfinished = True

    def __init__(  # noqa: PLR0913 (every option by name, so that editors complete and type checkers check it)
        self,
        model: str,
        *,
        dtype: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        kv_tokens: int | None = None,
        chunk: int | None = None,
        page_size: int = PAGE_SIZE,
        seed: int = 0,
        load_format: str = "auto",
        prefix: str = "forest",
        admission: str = "past-future",
        skip: tuple[str, ...] = (),
        linear: str = "dense",
        kv_cache_dtype: str = "auto",
        attention_backend: str = "auto",
        tensor_parallel_size: int = 1,
        data_parallel_size: int = 1,
        allow_lossy: bool = False,
        watchers: tuple[str, ...] = (),
        keep: str = "auto",
        speculate: str = "auto",
        model_impl: str = "auto",
        generation_config: str = "auto",
        executor: str = "local",
        ray_address: str | None = None,
        mixed_replicas: bool = False,
        lora: Mapping[str, str] | tuple[str, ...] = (),
        technique: tuple[str, ...] = (),
        kv_dir: str | None = None,
        kv_dir_gib: float = 10.0,
        profile: Recorder | None = None,
        runner: Runner | None = None,
        use_tqdm_on_load: bool | Callable[..., Any] | None = False,
        **unknown: Any,
    ):
        config = EngineConfig.of(
            model,
            dtype=dtype,
            device=device,
            threads=threads,
            kv_tokens=kv_tokens,
            chunk=chunk,
            page_size=page_size,
            seed=seed,
            load_format=load_format,
            prefix=prefix,
            admission=admission,
            skip=skip,
            linear=linear,
            kv_cache_dtype=kv_cache_dtype,
            attention_backend=attention_backend,
            tensor_parallel_size=tensor_parallel_size,
            data_parallel_size=data_parallel_size,
            allow_lossy=allow_lossy,
            watchers=watchers,
            keep=keep,
            speculate=speculate,
            model_impl=model_impl,
            generation_config=generation_config,
            executor=executor,
            ray_address=ray_address,
            mixed_replicas=mixed_replicas,
            lora=lora,
            technique=technique,
            kv_dir=kv_dir,
            kv_dir_gib=kv_dir_gib,
            **(unknown | ({"task": runner} if isinstance(runner, str) else {})),  # as vLLM's option of this name says
        )
        self.config = config
        self.for_vectors = (runner if isinstance(runner, str) else unknown.get("task")) in ("pooling", *TASKS)
        with loading_line(use_tqdm_on_load) as count:
            given = None if isinstance(runner, str) else runner
            self.engine = LocalEngine(config, partial(spans_for, profile), given, count=count)
        self.intake = Intake(self.engine.model, reuses=self.engine.reuses)

    @property
    def first_token(self) -> float | None:
        """When the first of all tokens was there, on the clock of time.monotonic; None before that."""
        return self.engine.first_token

    def plan_for(self, workload: Workload) -> Plan:
        """What `execute` would do with a tokenised workload."""
        return self.engine.plan_for(workload)

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        """Run a tokenised workload whose rows are valid, by its plan; Outputs come as rows finish. One at a time."""
        return self.engine.execute(workload, plan)

    def execute_all(self, arrivals: Arrivals, stops: Stops | None = None) -> Iterator[tuple[int, Output]]:
        """Run workloads that follow each other until `stops` ends them; outputs have their number and the row there."""
        return self.engine.execute_all(arrivals, stops)

    def session(self, *, ttft_target: float | None = None, tbt_target: float | None = None) -> Session:
        """Answers prompts that come while others run: `with llm.session() as session`. See Session. It aims at so many
        seconds to the first token of a row, and between tokens of rows that stream (None: at all answers together)."""
        return Session(self.engine, self.intake, Targets(ttft_target, tbt_target))

    def stats(self) -> Stats:
        """Totals over everything this object has run, live."""
        return self.engine.stats()

    def left(self) -> Left:
        """What the rows that run have left to do, as of half a second ago; from any thread."""
        return self.engine.left()

    def close(self) -> None:
        """Give the memory of the model and its KV back; nothing can be run any more."""
        self.engine.close()

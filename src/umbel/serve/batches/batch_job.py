"""The job that a batch is: that of `umbel run` with its file, on the engine of the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

from umbel.batch.engine_options import EngineOptions
from umbel.batch.job_options import JobOptions, OutputOptions, ReadingOptions, SamplingOptions
from umbel.batch.job_setup import build_job
from umbel.config import EngineConfig
from umbel.jobs.job import Job
from umbel.jobs.read.records import ReadOptions
from umbel.jobs.read.spool import opened
from umbel.serve.batches.shared_engine import SharedEngine
from umbel.serve.settings import ServeSettings

OUTPUT, ERRORS = "output.jsonl", "errors.jsonl"


@dataclass(frozen=True, slots=True)
class BatchFiles:
    """The files of a batch's job: what it reads, and the `folder` that it writes into."""

    source: Path
    folder: Path

    @property
    def output(self) -> Path:
        """Rows with an answer."""
        return self.folder / OUTPUT

    @property
    def errors(self) -> Path:
        """Rows without one."""
        return self.folder / ERRORS


@contextmanager
def opened_job(
    asked: JobOptions, engine: Callable[[], SharedEngine], look: Callable[[], None], *, any_url: bool
) -> Iterator[Job]:
    """A job, to be run within the block. `engine` makes what runs its rows; `look` raises once it is to stop; `any_url`
    as in ReadOptions. Raises UmbelError."""
    with opened(asked.sources, asked.output.target.parent) as source:
        job = build_job(asked, source)
        job.spec = replace(job.spec, options=replace(job.spec.options, any_url=any_url))
        job.load, job.warm = engine, look
        yield job


def options_of(settings: ServeSettings, reading: ReadOptions, files: BatchFiles) -> JobOptions:
    """The options by which `umbel run` does the same as the server's engine, which reads requests by `reading`."""
    variables = reading.chat_options.variables
    return JobOptions(
        model=settings.config.model,
        file=[str(files.source)],
        sampling=SamplingOptions(seed=settings.config.seed),
        reading=ReadingOptions(
            chat_template_kwargs=json.dumps(dict(variables)) if variables else None,
            tool_call_parser=reading.answers.calls,
            reasoning_parser=reading.answers.reasoning,
            served_model_name=list(settings.names),
            strict=reading.strict,
        ),
        engine=engine_options(settings.config),
        output=OutputOptions(output=str(files.output), errors=files.errors, quiet=True),
    )


def engine_options(config: EngineConfig) -> EngineOptions:
    """The options that give these settings."""
    same = {field.name for field in fields(EngineOptions)} & {field.name for field in fields(EngineConfig)}
    given = {name: getattr(config, name) for name in same}
    lora = config.lora if isinstance(config.lora, tuple) else [f"{name}={path}" for name, path in config.lora.items()]
    lists = {"skip_pass": list(config.skip), "watchers": list(config.watchers), "lora": list(lora)}
    lists["technique"] = list(config.technique)
    return EngineOptions(**given | {name: found or None for name, found in lists.items()})

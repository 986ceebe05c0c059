"""Puts a job together from what the command line said: model files, tokenizer, limits, fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umbel.config import EngineConfig
from umbel.errors import UsageError
from umbel.ir.budget import Budget
from umbel.ir.params import SamplingParams
from umbel.ir.request import Message
from umbel.ir.spans import UNHEARD
from umbel.jobs.execution import Engine
from umbel.jobs.fingerprint import fingerprint, hash_model
from umbel.jobs.formats.template import Template
from umbel.jobs.job import Job, JobSpec
from umbel.jobs.paths import check_paths
from umbel.jobs.rows import ReadOptions
from umbel.models.families import read_spec, resolve_model

if TYPE_CHECKING:
    from umbel.engine.recorder import Recorder
    from umbel.tokenizer import Tokenizer


class LateTokenizer:
    """A tokenizer that is loaded when the first text comes: rows of token ids need none, and no file for it.

    `now` is what chat templates see as today.
    """

    def __init__(self, directory: Path, now: datetime | None = None):
        self._directory = directory
        self._now = now

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        return self._loaded.encode(texts)

    def encode_chat(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Token ids of each chat."""
        return self._loaded.encode_chat(conversations)

    def decode_batch(self, rows: Sequence[Sequence[int]], *, skip_special_tokens: bool = True) -> list[str]:
        """The text of each list of ids."""
        return self._loaded.decode_batch(rows, skip_special_tokens=skip_special_tokens)

    @cached_property
    def _loaded(self) -> Tokenizer:
        from umbel.tokenizer import Tokenizer

        return Tokenizer.load(self._directory, self._now)


def build_job(
    config: EngineConfig,
    sampling: dict[str, Any],
    reading: dict[str, Any],
    source: Path,
    output: Path,
    *,
    order: str,
    fresh: bool,
    retry_failed: bool = False,
    budget: Budget | None = None,
    profile: Recorder | None = None,
) -> Job:
    """A job ready to run; nothing heavy is loaded yet. Raises UsageError, ModelError, InvalidRequest for defaults."""
    defaults = SamplingParams(**{name: value for name, value in sampling.items() if value not in (None, [])})
    check_paths(source, output)
    if not source.exists():
        raise UsageError(f"input {source}: no such file")
    directory = resolve_model(config.model)
    spec = read_spec(directory)
    names = model_names(config.model, directory, reading["names"])
    options = read_options(defaults, reading, spec.vocab_size, frozenset(names))
    engine = {"dtype": config.dtype, "seed": config.seed, "load_format": config.load_format}
    identity = fingerprint(source, options, hash_model(directory), engine, version("umbel"))
    job = JobSpec(
        input=source,
        output=output,
        options=options,
        identity=identity,
        model=names[0],
        width=spec.vocab_size,
        context=spec.max_positions,
        order=order,
        fresh=fresh,
        retry_failed=retry_failed,
        budget=budget or Budget(),
    )
    spans = UNHEARD if profile is None else profile
    tokenizer = partial(LateTokenizer, directory)
    return Job(job, tokenizer, lambda: _load(config, profile), warm=_import_engine, spans=spans)


def read_options(
    defaults: SamplingParams, reading: dict[str, Any], width: int | None, models: frozenset[str] | None
) -> ReadOptions:
    """Reader settings from the command line's. Raises UsageError for a template that cannot be read."""
    if reading["template"] is not None:
        Template.parse(reading["template"])
    elif reading["chat"]:
        raise UsageError("--chat: only means something with --prompt")
    return ReadOptions(defaults, reading["template"], reading["chat"], reading["strict"], width, models)


def model_names(model: str, directory: Path, served: tuple[str, ...] | list[str]) -> list[str]:
    """What rows may call the model, the name shown in answers first: --served-model-name, --model, its last part."""
    names = [*served, model, directory.resolve().name, model.rstrip("/").rsplit("/", 1)[-1]]
    return list(dict.fromkeys(name for name in names if name))


def _import_engine() -> None:
    """The imports that loading needs, which take seconds."""
    import umbel.api  # noqa: F401


def _load(config: EngineConfig, profile: Recorder | None) -> Engine:
    from umbel.api import LLM

    options = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "model"}
    engine: Engine = LLM(config.model, profile, **options)
    return engine

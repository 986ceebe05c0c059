"""Builds a job from its options: model files, tokenizer, limits, fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from umbel.batch.job_options import JobOptions
from umbel.batch.loading import Loading
from umbel.batch.reading import LateTokenizer, model_names, put_layout, read_options, with_techniques
from umbel.cluster.settings import check_replicas
from umbel.ir.adapter import digests_of, names_of
from umbel.ir.budget import seconds_of
from umbel.ir.soft_prompt import SoftPrompts
from umbel.ir.spans import NO_SPANS
from umbel.jobs.fingerprint import fingerprint
from umbel.jobs.job import Job
from umbel.jobs.job_spec import JobSpec
from umbel.jobs.paths import check_paths
from umbel.jobs.progress import Progress
from umbel.jobs.read.changes import HashedInput, input_identity
from umbel.jobs.read.inputs import Inputs
from umbel.models.adapters.modules import adapted_spec
from umbel.models.digest import stamp_model
from umbel.models.families import read_spec, resolve_model
from umbel.plan.explain.about import About, processor_words

if TYPE_CHECKING:
    from umbel.profile.recorder import Recorder


def build_job(asked: JobOptions, source: Inputs, profile: Recorder | None = None, typed: Sequence[str] = ()) -> Job:
    """A job ready to run, which reads `source` in the place of the input asked for; nothing heavy is loaded yet.
    `typed` are the words of its command behind `umbel`. Raises UsageError, ModelError."""
    config, reading, given = asked.config, asked.reading, asked.reading.served_model_name or ()
    if config.replicated:
        check_replicas(config, profiled=profile is not None)
    check_paths([file.path for file in source], asked.output.target)
    directory = resolve_model(config.model)
    stamps = stamp_model(directory)
    spec = adapted_spec(read_spec(directory, config.model_impl, config.generation_config), config)
    names = model_names(config.model, directory, given)
    defaults, template = asked.sampling.params(spec.sampling), LateTokenizer(directory).template
    vectors = asked.vectors.params(spec.pooler)
    options = read_options(defaults, reading, spec.vocab_size, frozenset(names), template, vectors, spec.pooler)
    options = replace(options, completions=asked.sampling.of_completions(spec.sampling), loras=names_of(spec.adapters))
    options = put_layout(with_techniques(options, config, spec), source, reading)
    loading = Loading(config, spec, directory, stamps, profile)
    watch, settings = tuple(HashedInput.of(file.path) for file in source), config.identity | digests_of(spec.adapters)
    identity = fingerprint(input_identity(source, watch), options, loading.files, settings, version("umbel"), given)
    job = JobSpec(
        input=source,
        output=asked.output.target,
        options=options,
        identity=identity,
        model=names[0],
        width=spec.vocab_size,
        context=spec.max_positions,
        bos=spec.bos_token_id,
        pooler=spec.pooler,
        soft=SoftPrompts.of(spec.adapters),
        order=asked.output.order,
        fresh=asked.output.fresh,
        retry_failed=asked.output.retry_failed,
        budget=asked.budget.budget(),
        grace=seconds_of(asked.budget.grace, "--grace"),
        price=asked.budget.price,
        watch=watch,
        errors=asked.output.errors,
    )
    spans, decided = NO_SPANS if profile is None else profile, loading.arithmetic
    about, tokenizer = partial(_about, asked, decided, typed), partial(LateTokenizer, directory)
    progress, warm = Progress(loaded=loading.count.share), _import_engine
    return Job(job, tokenizer, loading.engine, progress, warm=warm, spans=spans, arithmetic=decided, about=about)


def _about(asked: JobOptions, decided: Callable[[], Mapping[str, str]], typed: Sequence[str]) -> dict[str, str]:
    """What a run that begins now is, by the names of About."""
    device = decided()["device"]
    machine = processor_words() if device == "cpu" else device
    return About.now(asked.files, asked.model, machine, typed).as_dict()


def _import_engine() -> None:
    """Import the modules that loading needs, which takes seconds."""
    import umbel.engine.local  # noqa: F401

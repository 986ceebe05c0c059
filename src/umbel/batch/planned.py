"""Plans a job without running it: the input is read and tokenised, the plan made, and what is shown of it gathered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umbel.batch.job_options import JobOptions
from umbel.config import EngineConfig

if TYPE_CHECKING:
    from umbel.batch.plan_view import PlanView
    from umbel.batch.reading import LateTokenizer
    from umbel.cost.machine import Machine
    from umbel.ir.plan import Plan
    from umbel.ir.spec import ModelSpec
    from umbel.ir.workload import Workload
    from umbel.jobs.read.prepare import Prepared
    from umbel.jobs.read.records import ReadOptions
    from umbel.jobs.read.source import Source
    from umbel.jobs.read.source_files import SourceFiles
    from umbel.plan.layout import LayoutChoice


@dataclass(frozen=True, slots=True)
class PlanAim:
    """What a job is planned for.

    `spec`, `directory`: the model, and where it lies; None for a shape.
    `machine`: the name of a machine.
    `tokenizer`: the directory of another tokenizer than the model's.
    `typed`: the words behind `umbel`, which pages show.
    `told`: called with the rows that were read so far.
    """

    spec: ModelSpec
    directory: Path | None
    machine: str = "this"
    tokenizer: Path | None = None
    typed: Sequence[str] = ()
    told: Callable[[int], object] = lambda rows: None


def plan_job(job: JobOptions, aim: PlanAim, *, words: bool) -> PlanView:
    """Read the input and plan the job; `words` adds what the plan is of, and what its rows share in words. Raises
    UmbelError."""
    # Imported when a plan is made, so that a command's --help is quick.
    from umbel.batch.damage_limit import plan_within
    from umbel.batch.plan_forms import put_forms
    from umbel.batch.plan_replicas import find_nodes, put_replicas
    from umbel.batch.plan_view import PlanView
    from umbel.batch.planning import Planning, target_at
    from umbel.batch.prompts import first_prompts
    from umbel.batch.reading import LateTokenizer, put_layout
    from umbel.jobs.read.records import ReadNotes, note_texts
    from umbel.jobs.read.source_files import open_source
    from umbel.jobs.read.spool import opened
    from umbel.models.adapters.modules import adapted_spec
    from umbel.plan.deal.fit import fits_of
    from umbel.plan.explain.record import to_json

    budget, directory = job.budget.budget(), aim.directory
    found = find_nodes(job.config, aim.machine) if job.config.replicated else ((), "")
    target = target_at(job.config, aim.machine, len(found[0]))
    config, spec = target.config, adapted_spec(aim.spec, target.config)
    notes, tokenizer = ReadNotes(), LateTokenizer(aim.tokenizer or directory, model=job.model)
    options = _options(job, spec, directory, tokenizer)
    with opened(job.sources) as inputs:
        options = put_layout(options, inputs, job.reading, advise=True)
        prepared = _read(open_source(inputs, options, notes), tokenizer, spec, aim.told)
    notes.take((*tokenizer.notes, *options.answers.chosen))
    _check_rows(prepared, job.title, strict=job.reading.strict)
    planning = Planning(prepared.workload, spec, directory)
    plan, target, choice = plan_within(job, planning, target)
    plan = replace(plan, notes=(*plan.notes, *note_texts(notes.noted)))
    fits = fits_of(plan, prepared.workload, spec.max_positions, budget) if budget else {}
    record, prompts = {**to_json(plan), "input_rows": prepared.runnable}, first_prompts(prepared.workload, tokenizer)
    put_forms(record, prepared, tokenizer, spec)
    if options.layout is not None:
        record["layout"] = _layout_of(options.layout, options, job.config, spec, record["prompt_tokens"])
    _put_total(record, spec, directory, target.config, job.budget.price)
    if config.replicated:
        put_replicas(record, found, lambda count: planning.plan(target.of_count(count)))
    if words:  # spelt by the tokenizer that the first prompts were spelt with
        _put_words(record, plan, prepared.workload, tokenizer)
        record = {"about": _about(job, target.machine, aim.typed), **record}
    return PlanView(record, prepared, fits, prompts, choice)


def _options(job: JobOptions, spec: ModelSpec, directory: Path | None, tokenizer: LateTokenizer) -> ReadOptions:
    """How the rows of a job are read."""
    from umbel.batch.reading import model_names, read_options, with_techniques
    from umbel.ir.adapter import names_of

    names = frozenset(model_names(job.model, directory, job.reading.served_model_name or ()))
    defaults, vectors = job.sampling.params(spec.sampling), job.vectors.params(spec.pooler)
    options = read_options(defaults, job.reading, spec.vocab_size, names, tokenizer.template, vectors, spec.pooler)
    options = replace(options, completions=job.sampling.of_completions(spec.sampling), loras=names_of(spec.adapters))
    return with_techniques(options, job.config, spec)


def _layout_of(
    choice: LayoutChoice, options: ReadOptions, config: EngineConfig, spec: ModelSpec, tokens: int
) -> dict[str, Any]:
    """The choice of a layout, with what documents that are computed once would save of so many tokens, where they are
    not so already and may be."""
    from umbel.plan.reuse import why_no_reuse

    is_chat = options.chat or options.system is not None
    taken = options.apart or is_chat or config.technique or why_no_reuse(config, spec)
    return {**choice.to_json(), "reuse": "" if taken else choice.reuse_text(tokens)}


def _put_total(
    record: dict[str, Any], spec: ModelSpec, directory: Path | None, config: EngineConfig, price: float | None
) -> None:
    """Put the time of the whole job into the record of its plan, and what it costs."""
    from umbel.cost.shape import Shape
    from umbel.cost.startup import Loads, reading
    from umbel.plan.explain.total import put_total

    n_bytes = Shape.of(spec, spec.dtype).weight_bytes
    loading = Loads.of(directory, config).expect(n_bytes)
    put_total(record, reading(record["rows"], record["prompt_tokens"]), loading, price)


def _about(job: JobOptions, target: Machine, typed: Sequence[str]) -> dict[str, str]:
    """What the plan is of, by the names of About."""
    from umbel.plan.explain.about import About, machine_words

    return About.now(job.files, job.model, machine_words(target), typed).as_dict()


def _put_words(record: dict[str, Any], plan: Plan, workload: Workload, tokenizer: LateTokenizer) -> None:
    """Put the words that rows share into the tree."""
    from umbel.plan.explain.tree import shown_lines
    from umbel.plan.explain.words import put_words

    put_words(record["tree"], shown_lines(plan), plan, workload, tokenizer.spell)


def _read(
    source: Source | SourceFiles, tokenizer: LateTokenizer, spec: ModelSpec, told: Callable[[int], object]
) -> Prepared:
    """The rows of an input."""
    from umbel.ir.soft_prompt import SoftPrompts
    from umbel.jobs.read.prepare import prepare

    sizes, soft = (spec.vocab_size, spec.max_positions), SoftPrompts.of(spec.adapters)
    return prepare(source, tokenizer, *sizes, told, spec.bos_token_id, spec.pooler, soft)


def _check_rows(prepared: Prepared, source: str, *, strict: bool) -> None:
    """Raise InputError when no row can run, or with `strict` when one cannot."""
    from umbel.errors import InputError
    from umbel.jobs.read.alike import check_any
    from umbel.jobs.read.records import strict_message

    if strict and prepared.faults:
        raise InputError(strict_message(prepared.faults, prepared.rows))
    check_any(prepared, source)

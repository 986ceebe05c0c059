"""`umbel plan`: what a run would compute, in which order, memory and time; needs no weights and no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umbel.batch.job_options import JobOptions, ViewOptions
from umbel.config import EngineConfig
from umbel.errors import UsageError

if TYPE_CHECKING:
    from umbel.batch.reading import LateTokenizer
    from umbel.cli.plan_view import PlanView
    from umbel.cost.machine import Machine
    from umbel.ir.plan import Plan
    from umbel.ir.spec import ModelSpec
    from umbel.ir.workload import Workload
    from umbel.jobs.read.prepare import Prepared
    from umbel.jobs.read.source import Source
    from umbel.jobs.read.source_files import SourceFiles

ONE_LINE = 400  # characters, which pages break themselves


def plan_command(job: JobOptions, view: ViewOptions = ViewOptions(), typed: Sequence[str] = ()) -> int:
    """Show the plan of a job without running it: what is computed, in which order, memory and time.

    It takes the options of umbel run, so that one line serves both; the weights are not needed.

    \f
    Examples:
      umbel plan tasks.jsonl -m demo
      umbel plan tasks.jsonl -m demo --temperature 0 --deadline 30m
      umbel plan tasks.jsonl -m demo --machine h200 --html plan.html

    Exit codes: 0 the plan was printed, 1 internal error, 2 usage (also an empty file), 4 the input cannot be read, none
    of its rows can run, or --strict found a fault, 6 a row does not fit this machine, 130 Ctrl-C, 141 the reader of the
    output left.
    """
    return show_plan(job, view, typed)


def show_plan(job: JobOptions, view: ViewOptions, typed: Sequence[str] = ()) -> int:
    """Print the plan of a job, or write it where asked; returns the exit code. Raises UmbelError.

    `typed` are the words behind `umbel`, which pages show.
    """
    # Imported when the command runs, so that --help is quick.
    from umbel.batch.terminal import show, width_of

    job.check()
    html = view.page_of(job.sources[0])
    if html is not None:
        _check_page(html, job.sources)
    shown = _viewed(job, view, typed, words=view.as_json or html is not None)
    if html is not None:
        _write_page(html, shown, job.title, show=view.open_page)
    if view.as_json:
        print(shown.as_json(), end="")
    else:
        width = width_of(sys.stdout)
        show(shown.text(width) if job.output.verbose else shown.brief(width))
    return 0


def _viewed(job: JobOptions, view: ViewOptions, typed: Sequence[str], *, words: bool) -> PlanView:
    """Read the input and plan the job; `words` adds what the plan is of, and what its rows share in words."""
    from umbel.batch.prompts import first_prompts
    from umbel.batch.reading import LateTokenizer, model_names, read_options
    from umbel.cli.plan_forms import put_forms
    from umbel.cli.plan_view import PlanView
    from umbel.ir.adapter import names_of
    from umbel.jobs.read.records import ReadNotes, note_texts
    from umbel.jobs.read.source_files import open_source
    from umbel.jobs.read.spool import opened
    from umbel.models.adapters.modules import adapted_spec
    from umbel.plan.deal.fit import fits_of
    from umbel.plan.explain.record import to_json
    from umbel.sim.model import find_model

    budget = job.budget.budget()
    config, target = _aim(job.config, view.machine)
    spec, directory = find_model(job.model, config.model_impl, config.generation_config)
    spec = adapted_spec(spec, config)
    names = frozenset(model_names(job.model, directory, job.reading.served_model_name or ()))
    notes, tokenizer = ReadNotes(), LateTokenizer(view.tokenizer or directory, model=job.model)
    defaults = job.sampling.params(spec.sampling)
    vectors = job.vectors.params(spec.pooler)
    options = read_options(defaults, job.reading, spec.vocab_size, names, tokenizer.template, vectors, spec.pooler)
    completions = job.sampling.of_completions(spec.sampling)
    options = replace(options, loras=names_of(spec.adapters), completions=completions)
    with opened(job.sources) as inputs:
        prepared = _read(open_source(inputs, options, notes), tokenizer, spec)
    notes.take((*tokenizer.notes, *options.answers.chosen))
    _check_rows(prepared, job.title, strict=job.reading.strict)
    plan = _plan(prepared.workload, spec, directory, config, target)
    plan = replace(plan, notes=(*plan.notes, *note_texts(notes.noted)))
    fits = fits_of(plan, prepared.workload, spec.max_positions, budget) if budget else {}
    record, prompts = to_json(plan), first_prompts(prepared.workload, tokenizer)
    put_forms(record, prepared, tokenizer, spec)
    _put_total(record, spec, directory, config, job.budget.price)
    if words:  # spelt by the tokenizer that the first prompts were spelt with
        _put_words(record, plan, prepared.workload, tokenizer)
        record = {"about": _about(job, target, typed), **record}
    return PlanView(record, prepared, fits, prompts)


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


def _aim(config: EngineConfig, name: str) -> tuple[EngineConfig, Machine]:
    """The machine that one replica plans for, on as many devices of the machine `name` as it has, and its settings.

    Several accelerators hold a part of every layer each, where the settings do not say how they are used.
    """
    from umbel.cli.devices import machine_here
    from umbel.cost.cards import counted, named
    from umbel.cost.devices import joined, shared_by, threads_of_each

    count, kind = counted(name)
    used = config.tensor_parallel_size * config.data_parallel_size
    if used == 1:
        config = replace(config, tensor_parallel_size=count)
    elif count not in (1, used):
        raise UsageError(f"--machine {name}: --tensor-parallel-size times --data-parallel-size is {used}, not {count}")
    replicas = config.data_parallel_size
    found = machine_here(config.device) if kind == "this" else named(kind)
    target = joined(shared_by(found, replicas), config.tensor_parallel_size)
    if replicas > 1 and not target.on_gpu:
        config = replace(config, threads=threads_of_each(config.threads, replicas))
    return config, target


def _plan(workload: Workload, spec: ModelSpec, directory: Path | None, config: EngineConfig, target: Machine) -> Plan:
    """The plan that a run would make, with the history of earlier runs."""
    from umbel.cost.history import History
    from umbel.plan.deal.shared_plan import plan_replicas
    from umbel.plan.planner import make_plan

    chosen = replace(config, dtype=target.choose_dtype(config.dtype, spec.dtype))
    known = History.of(spec, directory, chosen.cost_key, target, config.threads).load()
    make = partial(make_plan, spec=spec, config=config, machine=target, known=known)
    replicas = config.data_parallel_size
    return plan_replicas(workload, replicas, make) if replicas > 1 else make(workload)


def _read(source: Source | SourceFiles, tokenizer: LateTokenizer, spec: ModelSpec) -> Prepared:
    """The rows of an input; a large one says on a terminal how far it is."""
    from umbel.cli.ticker import Ticker
    from umbel.ir.adapter import names_of
    from umbel.jobs.read.prepare import prepare

    ticker = Ticker()
    try:
        told = lambda rows: ticker(f"reading: {rows:,} rows")  # noqa: E731
        sizes, loras = (spec.vocab_size, spec.max_positions), names_of(spec.adapters)
        return prepare(source, tokenizer, *sizes, told, spec.bos_token_id, spec.pooler, loras)
    finally:
        ticker.clear()


def _check_rows(prepared: Prepared, source: str, *, strict: bool) -> None:
    """Raise InputError when no row can run, or with `strict` when one cannot."""
    from umbel.errors import InputError
    from umbel.jobs.read.alike import check_any
    from umbel.jobs.read.records import strict_message

    if strict and prepared.faults:
        raise InputError(strict_message(prepared.faults, prepared.rows))
    check_any(prepared, source)


def _check_page(html: Path, files: Sequence[str]) -> None:
    from umbel.batch.extras import check_page
    from umbel.jobs.remote import is_uri

    check_page(html, sources=[Path(file) for file in files if not is_uri(file)])


def _write_page(html: Path, shown: PlanView, title: str, *, show: bool) -> None:
    from umbel.batch.extras import write_page
    from umbel.plan.explain.page import plan_page

    page = plan_page(shown.record, shown.text(), f"Plan of {title}", shown.head(ONE_LINE))
    write_page(html, page, show=show)

"""`umbel plan`: what a run would compute, in which order, memory and time; needs no weights and no torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from umbel.cli.arguments import Argument, Option
from umbel.cli.engine_options import EngineOptions
from umbel.config import EngineConfig
from umbel.ir.budget import Budget

if TYPE_CHECKING:
    from umbel.cost.machine import Machine
    from umbel.ir.plan import Plan
    from umbel.ir.request import RowError
    from umbel.ir.spec import ModelSpec
    from umbel.ir.workload import Workload


def plan_command(
    file: Annotated[Path, Argument(help="Input: JSONL, OpenAI batch lines, Parquet or CSV.")],
    model: Annotated[str, Option("-m", "--model", help="'demo', a directory (config.json is enough), or a hub id.")],
    prompt: Annotated[str | None, Option(help='Template over columns, e.g. "Classify: {text}".')] = None,
    chat: Annotated[bool, Option("--chat", help="Put each templated prompt into a user message.")] = False,
    choices: Annotated[str | None, Option(help="Labels of which each row gets the most likely one.")] = None,
    calibration_prompt: Annotated[str | None, Option(help="With --choices: a prompt without content.")] = None,
    max_tokens: Annotated[int | None, Option(help="Output limit of rows that set none.", min=1)] = None,
    served_model_name: Annotated[list[str] | None, Option(help="Names that rows may call the model.")] = None,
    engine: EngineOptions = EngineOptions(),
    machine: Annotated[str, Option(help="this (measured), h200 or a100.")] = "this",
    deadline: Annotated[str | None, Option(help="Say what fits into 90, 90s, 15m or 2h of running.")] = None,
    max_output_tokens_total: Annotated[int | None, Option(help="Say what fits into so many tokens.")] = None,
    as_json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
    html: Annotated[Path | None, Option("--html", help="Write a page with pictures to this file.")] = None,
) -> None:
    """Show the plan of a job without running it."""
    # Imported when the command runs, so that --help is quick.
    from umbel.cli.reading import LateTokenizer, model_names, read_options
    from umbel.ir.params import SamplingParams
    from umbel.jobs.read.prepare import prepare
    from umbel.jobs.read.records import ReadNotes, note_texts
    from umbel.jobs.read.source import Source
    from umbel.jobs.read.spool import readable
    from umbel.models.families import read_spec, resolve_model
    from umbel.plan.deal.fit import fits_of, fits_text

    if html is not None:
        _check_page(html, file)
    budget = Budget.of(deadline, max_output_tokens_total)
    config, target = _aim(engine.config(model), machine)
    directory = resolve_model(model)
    spec = read_spec(directory)
    reading = {"template": prompt, "chat": chat, "strict": False}
    reading |= {"choices": choices, "calibration_prompt": calibration_prompt}
    names = frozenset(model_names(model, directory, served_model_name or ()))
    options = read_options(SamplingParams(max_tokens=max_tokens), reading, spec.vocab_size, names)
    notes, tokenizer = ReadNotes(), LateTokenizer(directory)
    with readable(file) as source:
        prepared = prepare(Source(source, options, notes), tokenizer, spec.vocab_size, spec.max_positions)
    notes.take(tokenizer.notes)
    plan = _plan(prepared.workload, spec, directory, config, target)
    plan = replace(plan, notes=(*plan.notes, *note_texts(notes.noted)))
    fits = fits_of(plan, prepared.workload, spec.max_positions, budget) if budget else {}
    text = _text(plan, prepared.faults) + (fits_text(fits) if fits else "")
    if html is not None:
        _write_page(html, plan, file.name, text)
    print(_json(plan, prepared.rows, prepared.faults, fits) if as_json else text, end="")


def _aim(config: EngineConfig, name: str) -> tuple[EngineConfig, Machine]:
    """The machine that one replica plans for, on as many devices of the machine `name` as it has, and its settings."""
    from umbel.cost.devices import joined, shared_by, threads_of_each
    from umbel.cost.machine import named

    replicas = config.data_parallel_size
    target = joined(shared_by(named(name), replicas), config.tensor_parallel_size)
    if replicas > 1 and not target.on_gpu:
        config = replace(config, threads=threads_of_each(config.threads, replicas))
    return config, target


def _plan(workload: Workload, spec: ModelSpec, directory: Path, config: EngineConfig, target: Machine) -> Plan:
    """The plan that a run would make, with the history of earlier runs."""
    from umbel.cost.history import History
    from umbel.plan.deal.shared_plan import plan_replicas
    from umbel.plan.planner import make_plan

    chosen = replace(config, dtype=target.choose_dtype(config.dtype, spec.dtype))
    known = History.of(spec, directory, chosen.cost_key, target, config.threads).load()
    make = partial(make_plan, spec=spec, config=config, machine=target, known=known)
    replicas = config.data_parallel_size
    return plan_replicas(workload, replicas, make) if replicas > 1 else make(workload)


def _text(plan: Plan, faults: Sequence[tuple[int, RowError]]) -> str:
    from umbel.plan.explain.text import explain

    text = explain(plan)
    if faults:
        codes = Counter(error.code for _, error in faults)
        listed = ", ".join(f"{code} {count:,}" for code, count in codes.most_common())
        text += f"not in this plan, as they will be errors: {listed}\n"
    return text


def _check_page(html: Path, source: Path) -> None:
    from umbel.cli.extras import check_page

    check_page(html, source=source)


def _write_page(html: Path, plan: Plan, name: str, text: str) -> None:
    from umbel.cli.extras import write_page
    from umbel.plan.explain.page import plan_page
    from umbel.plan.explain.text import to_json

    write_page(html, plan_page(to_json(plan), text, f"Plan of {name}"))


def _json(plan: Plan, rows: int, faults: Sequence[tuple[int, RowError]], fits: Mapping[str, object]) -> str:
    """The plan as an object; `rows` counts all rows of the input, `invalid_rows` those that cannot run, `budget` says
    which of them fit one."""
    from umbel.plan.explain.text import to_json

    more = {"rows": rows, "invalid_rows": len(faults), **({"budget": fits} if fits else {})}
    return json.dumps({**to_json(plan), **more}, indent=2) + "\n"

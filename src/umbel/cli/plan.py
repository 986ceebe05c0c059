"""`umbel plan`: what a run would compute, in which order, memory and time; needs no weights and no torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umbel.config import EngineConfig

if TYPE_CHECKING:
    from umbel.ir.plan import Plan
    from umbel.ir.request import RowError


def plan_command(
    file: Annotated[Path, typer.Argument(help="Input: JSONL, OpenAI batch lines, Parquet or CSV.")],
    model: Annotated[
        str, typer.Option("-m", "--model", help="'demo', a directory (config.json is enough), or a hub id.")
    ],
    prompt: Annotated[str | None, typer.Option(help='Template over columns, e.g. "Classify: {text}".')] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put each templated prompt into a user message.")] = False,
    max_tokens: Annotated[int | None, typer.Option(help="Output limit of rows that set none.", min=1)] = None,
    served_model_name: Annotated[list[str] | None, typer.Option(help="Names that rows may call the model.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    kv_tokens: Annotated[int | None, typer.Option(help="Size of the KV pool in tokens; derived if not given.")] = None,
    chunk: Annotated[int | None, typer.Option(help="Most tokens of one step; derived if not given.")] = None,
    machine: Annotated[str, typer.Option(help="this (measured now), h200 or a100.")] = "this",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the plan of a job without running it."""
    # Imported when the command runs, so that --help is quick.
    from umbel.cli.assemble import LateTokenizer, model_names, read_options
    from umbel.cost.machine import named
    from umbel.ir.params import SamplingParams
    from umbel.jobs.prepare import prepare
    from umbel.jobs.source import Source
    from umbel.models.families import read_spec, resolve_model
    from umbel.plan.planner import make_plan

    config = EngineConfig.of(model, dtype=dtype, kv_tokens=kv_tokens, chunk=chunk)
    target = named(machine)
    directory = resolve_model(model)
    spec = read_spec(directory)
    reading = {"template": prompt, "chat": chat, "strict": False}
    names = frozenset(model_names(model, directory, served_model_name or ()))
    options = read_options(SamplingParams(max_tokens=max_tokens), reading, spec.vocab_size, names)
    prepared = prepare(Source(file, options), LateTokenizer(directory), spec.vocab_size, spec.max_positions)
    plan = make_plan(prepared.workload, spec, config, target)
    typer.echo(_json(plan, prepared.rows, prepared.faults) if as_json else _text(plan, prepared.faults), nl=False)


def _text(plan: Plan, faults: Sequence[tuple[int, RowError]]) -> str:
    from umbel.plan.explain import explain

    text = explain(plan)
    if faults:
        codes = Counter(error.code for _, error in faults)
        listed = ", ".join(f"{code} {count:,}" for code, count in codes.most_common())
        text += f"not in this plan, as they will be errors: {listed}\n"
    return text


def _json(plan: Plan, rows: int, faults: Sequence[tuple[int, RowError]]) -> str:
    """The plan's object; `rows` counts all rows of the input, `invalid_rows` those that cannot run."""
    from umbel.plan.explain import to_json

    return json.dumps({**to_json(plan), "rows": rows, "invalid_rows": len(faults)}, indent=2) + "\n"

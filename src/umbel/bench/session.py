"""A bench run from its options to its record: workloads and floors, rounds, tokens, whole commands."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umbel.bench.agreement import against_each_other, against_truth, ask_oracle, read_answers
from umbel.bench.engines import Contestant, parse_engine
from umbel.bench.fleet import BenchSetup, Say
from umbel.bench.floors import floor_of
from umbel.bench.process import EngineError
from umbel.bench.record import Record, about, now
from umbel.bench.rounds import BenchRounds, Schedule, answers_path
from umbel.bench.sources import SeededWorkload, Sources, longest
from umbel.bench.whole import run_whole
from umbel.cost.cards import named
from umbel.errors import UsageError
from umbel.ir.spec import ModelSpec
from umbel.models.families import read_spec, resolve_model


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `umbel bench`; `peers` and `peer_models` by the name of a peer, `command` as it was typed.

    `check_rows`: rows of each workload that the oracle answers too.
    `whole`: how often whole commands are timed.
    """

    model: str
    engines: str
    workloads: str
    schedule: Schedule
    out: Path
    dtype: str = "auto"
    threads: int = 2
    peers: Mapping[str, str] = field(default_factory=dict)
    peer_models: Mapping[str, str] = field(default_factory=dict)
    data: Path | None = None
    tokenizer: Path | None = None
    check_rows: int = 8
    whole: int = 0
    timeout: float = 1200.0
    command: Sequence[str] = ()


def run_bench(options: Options, say: Say) -> Record:
    """Measure; the record is in `options.out` from the first measurement on. Raises UsageError and InputError before
    anything is started; failures of an engine are part of the record."""
    engines = [parse_engine(name.strip()) for name in options.engines.split(",") if name.strip()]
    if not engines or len({engine.name for engine in engines}) < len(engines):
        raise UsageError(f"--engines {options.engines}: name each engine once, and at least one")
    directory = resolve_model(options.model)
    spec = read_spec(directory)
    dtype = named("this").choose_dtype(options.dtype, spec.dtype)
    cases = Sources(spec.vocab_size, options.data, options.tokenizer or directory).cases(options.workloads)
    record = _begin(options, directory, spec, dtype)
    seed = options.schedule.seed
    rows = {case.name: case.rows(seed) for case in cases}
    for name, found in rows.items():
        _check_lengths(name, longest(found), spec)
        record.add_case(name, len(found), floor_of(found, spec, dtype))
    assert record.path is not None  # _begin gave one
    folder = record.path.with_suffix("")
    folder.mkdir(exist_ok=True)
    most = max(map(longest, rows.values()))
    setup = BenchSetup(directory.resolve(), dtype, options.threads, most, folder, options.out / "models", options.peers,
                  options.peer_models, options.timeout)  # fmt: skip
    setup.models.mkdir(exist_ok=True)
    if options.schedule.repeats:
        BenchRounds(cases, engines, setup, record, say).run(options.schedule)
        _compare(cases, engines, setup, record, options, say)
    if options.whole:
        run_whole(cases, engines, setup, record, options.whole, seed, say)
    record.about["finished"] = now()
    record.save()
    return record


def _begin(options: Options, directory: Path, spec: ModelSpec, dtype: str) -> Record:
    """An empty record, in a file of its own."""
    options.out.mkdir(parents=True, exist_ok=True)
    model = {
        "name": Path(options.model).name,
        "family": spec.family,
        "layers": spec.n_layers,
        "hidden": spec.hidden_size,
    }
    schedule = options.schedule
    settings = {"threads": options.threads, "repeats": schedule.repeats, "seed": schedule.seed}
    record = Record(about(options.command, {**model, "dtype": dtype}, settings))
    record.path = options.out.resolve() / f"bench-{record.about['date'].replace(':', '')}.json"
    return record


def _check_lengths(name: str, tokens: int, spec: ModelSpec) -> None:
    if tokens > spec.max_positions:
        raise UsageError(f"--workloads {name}: has rows of {tokens:,} tokens, the model only {spec.max_positions:,}")


def _compare(
    cases: Sequence[SeededWorkload],
    engines: Sequence[Contestant],
    setup: BenchSetup,
    record: Record,
    options: Options,
    say: Say,
) -> None:
    """Compare the first round's greedy tokens with the oracle's and with each other."""
    rows = {case.name: case.rows(options.schedule.seed) for case in cases}
    answers = {name: _greedy_answers(name, found, engines, setup) for name, found in rows.items()}
    found: dict[str, Any] = {"pairs": {name: against_each_other(a) for name, a in answers.items() if len(a) > 1}}
    record.agreement = found
    if options.check_rows:
        try:
            wanted = {name: rows[name] for name, given in answers.items() if given}
            truths = ask_oracle(wanted, options.check_rows, sys.executable, setup, say)
            found["oracle"] = {
                name: {engine: against_truth(given, truth) for engine, given in answers[name].items()}
                for name, truth in truths.items()
            }
        except EngineError as error:
            record.failures.append({"engine": "oracle", "case": None, "why": str(error), "at": now()})
            say(f"failed: oracle: {error}")
    record.save()


def _greedy_answers(
    case: str, rows: Sequence[Any], engines: Sequence[Contestant], setup: BenchSetup
) -> dict[str, dict[int, list[int]]]:
    """The tokens of greedy rows, by engine, for the engines that ran them."""
    greedy = {i for i, row in enumerate(rows) if row.temperature == 0}
    paths = {engine.name: answers_path(setup.folder, case, engine.name, 0) for engine in engines}
    found = {name: read_answers(path) for name, path in paths.items() if path.exists()}
    return {name: {i: a for i, a in given.items() if i in greedy} for name, given in found.items() if greedy}

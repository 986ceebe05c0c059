"""`umbel sim`: what a job would take on a machine, under other engines' policies and under ours; needs no weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from umbel.batch import engine_options
from umbel.batch.declared import Argument, Option
from umbel.batch.job_options import MACHINE, ReadingOptions
from umbel.cli.ticker import Ticker
from umbel.config import EngineConfig
from umbel.errors import UsageError

if TYPE_CHECKING:
    from umbel.batch.reading import LateTokenizer
    from umbel.cost.known import Known
    from umbel.cost.machine import Machine
    from umbel.ir.params import SamplingParams
    from umbel.ir.spec import ModelSpec
    from umbel.sim.case import SimCase
    from umbel.sim.simulate import Outcome

_FILE = "Input as for plan, a trace (--trace), or synthetic:prefix=2000,remainder=200,degree=16,rows=6400,output=100"
_MODEL = "A directory with config.json, that file, 'demo', or a shape such as llama-3.1-8b."
_POLICIES = (
    "Which, by commas [fcfs-lru,random-lru,sorted-lru,llm-d-hash,daft-buckets,sglang-lpm,longest-prefix,blendserve,"
    "batchllm,umbel]; also umbel-no-prefix and the like."
)


def sim_command(
    file: Annotated[str, Argument(help=_FILE)],
    model: Annotated[str, Option("-m", "--model", metavar="CONFIG", help=_MODEL)],
    machine: Annotated[str, Option(help=MACHINE)] = "this",
    kv_tokens: Annotated[int | None, Option(help="Size of the KV pool in tokens; derived if not given.")] = None,
    policies: Annotated[str | None, Option(help=_POLICIES)] = None,
    ablations: Annotated[bool, Option("--ablations", help="Ours with each part switched off, too.")] = False,
    trace: Annotated[str | None, Option(help="Kind of trace: mooncake, blocks16, lengths or agent.")] = None,
    rows: Annotated[int | None, Option(help="Rows of a trace to take.", min=1)] = None,
    tokenizer: Annotated[Path | None, Option(help="Directory of tokenizer.json, for text [the model's].")] = None,
    prompt: Annotated[str | None, Option(help='Template over columns, e.g. "Classify: {text}".', written=True)] = None,
    chat: Annotated[bool, Option("--chat", help="Put each templated prompt into a user message.")] = False,
    max_tokens: Annotated[int | None, Option(help="Output limit of rows that set none.", min=1)] = None,
    replicas: Annotated[int | None, Option(help="Our plan, dealt to so many replicas, instead.", min=1)] = None,
    speeds: Annotated[str | None, Option(help="With --replicas: paces of the first, as in 1,1,0.33.")] = None,
    joins: Annotated[str | None, Option(help="With --replicas: those that come later, as in 2@30 (seconds).")] = None,
    losses: Annotated[str | None, Option(help="With --replicas: those that are lost, as in 0@60,3@90.")] = None,
    dtype: engine_options.Dtype = "auto",
    threads: Annotated[int | None, Option(help="CPU threads that the run would take.")] = None,
    as_json: Annotated[bool, Option("--json", help="Print a JSON list, one object a policy.")] = False,
) -> None:
    """Simulate a job on a virtual clock under several policies.

    Runs the production scheduler; only the model is replaced, by its price. Saving is 1 - computed / prompt tokens,
    where what a cache lost and computed again counts as computed. With --replicas, what a cluster makes of our plan:
    up to 20,000 rows step by step, more of them with a price for each row.

    \f
    Examples:
      umbel sim tasks.jsonl -m demo --machine h200
      umbel sim synthetic:prefix=2000,remainder=200,degree=16,rows=6400,output=100 -m llama-3.1-8b --machine h200
      umbel sim synthetic:rows=6400 -m llama-3.1-8b --machine h200 --replicas 8 --speeds 1,0.33 --losses 2@30

    Exit codes: 0, 2 usage, 4 the input cannot be read, 6 a row does not fit the machine.
    """
    from umbel.batch.reading import LateTokenizer
    from umbel.cli.sim_cluster import cluster_text
    from umbel.cost.devices import machine_of
    from umbel.ir.params import SamplingParams
    from umbel.sim.case import SimCase
    from umbel.sim.model import find_model
    from umbel.sim.simulate import simulate

    names = _names(policies, ablations=ablations)
    nodes = _nodes(replicas, {"--speeds": speeds, "--joins": joins, "--losses": losses}, policies)
    config = EngineConfig.of(model, dtype=dtype, threads=threads, kv_tokens=kv_tokens)
    target = machine_of(machine)
    spec, directory = find_model(model)
    texts = LateTokenizer(tokenizer or directory, model=model)
    read = partial(_read_job, reading=ReadingOptions(prompt, chat), defaults=SamplingParams(max_tokens=max_tokens))
    workload, lengths = _read(file, trace, rows, spec, texts, read)
    known = None if directory is None else _known(spec, directory, target, config)
    case = SimCase(workload, spec, target, config, lengths, known)
    if nodes:
        print(cluster_text(case, nodes, as_json=as_json))
        return
    ticker = Ticker()
    tell = lambda policy, done, rows: ticker(f"{policy}: {done:,} of {rows:,} rows")  # noqa: E731
    outcomes = [simulate(case, name, tell) for name in names]
    ticker.clear()
    print(json.dumps([o.as_dict() for o in outcomes], indent=2) if as_json else _table(case, outcomes))


def _known(spec: ModelSpec, directory: Path, machine: Machine, config: EngineConfig) -> Known:
    """The history of this model on this machine, as `umbel plan` takes it."""
    from umbel.cost.history import History

    settings = replace(config, dtype=machine.choose_dtype(config.dtype, spec.dtype))
    return History.of(spec, directory, settings.cost_key, machine, config.threads).load()


def _names(policies: str | None, *, ablations: bool) -> list[str]:
    from umbel.sim.policies.named import ABLATIONS, POLICIES, check_name

    names = list(POLICIES) if policies is None else [name.strip() for name in policies.split(",") if name.strip()]
    if ablations:
        names += ABLATIONS
    for name in names:
        check_name(name)
    if not names:
        raise UsageError(f"--policies: name at least one of {', '.join(POLICIES)}")
    return list(dict.fromkeys(names))


def _nodes(replicas: int | None, given: dict[str, str | None], policies: str | None) -> list[Any]:
    """The nodes of a cluster, none where no one is asked for."""
    from umbel.sim.cluster.nodes import nodes_of

    if replicas is None:
        for option in (name for name, value in given.items() if value is not None):
            raise UsageError(f"{option} is for a cluster: say how many --replicas it has")
        return []
    if policies is not None:
        raise UsageError(f"--policies {policies}: a cluster runs our plan only; leave out --policies or --replicas")
    return nodes_of(replicas, given["--speeds"], given["--joins"], given["--losses"])


def _read(
    file: str, trace: str | None, rows: int | None, spec: ModelSpec, texts: LateTokenizer, read_job: Callable[..., Any]
) -> tuple[Any, Any]:
    """The workload, and the lengths of its answers where they are known."""
    from umbel.sim.synthetic import PREFIX, Synthetic
    from umbel.sim.traces import read_trace

    if file.startswith(PREFIX):
        return Synthetic.parse(file).workload(), None
    if trace is not None:
        read = read_trace(Path(file), trace, spec.max_positions, texts, rows)
        if read.dropped:
            _say(f"{read.dropped:,} rows left out: empty, or longer than the model's {spec.max_positions:,} positions")
        return read.workload, read.lengths
    return read_job(Path(file), spec, texts), None


def _read_job(
    file: Path, spec: ModelSpec, texts: LateTokenizer, *, reading: ReadingOptions, defaults: SamplingParams
) -> Any:
    """The rows of a job that could run, as `umbel plan` reads them."""
    from umbel.batch.reading import read_options
    from umbel.jobs.read.prepare import prepare
    from umbel.jobs.read.source import Source
    from umbel.jobs.read.spool import readable

    options = read_options(defaults, reading, spec.vocab_size, None, texts.template)
    with readable(file) as source:
        prepared = prepare(Source(source, options), texts, spec.vocab_size, spec.max_positions)
    if prepared.faults:
        _say(f"{len(prepared.faults):,} rows left out: they would be errors (umbel plan lists them)")
    return _without_stops(prepared.workload)


def _without_stops(workload: Any) -> Any:
    """The rows without stop strings: no text is generated here in which one could be found."""
    known = {id(params): replace(params, stop=()) for params in workload.params}
    return replace(workload, params=[known[id(params)] for params in workload.params])


def _table(case: SimCase, outcomes: Sequence[Outcome]) -> str:
    width = max(len(o.policy) for o in outcomes)
    head = f"{len(case.workload):,} rows, {len(case.workload.tokens):,} prompt tokens; {case.machine.name}, "
    head += f"{case.price.dtype}, KV pool of {outcomes[0].kv_tokens:,} tokens"
    titles = f"{'policy':<{width}}{'computed':>15}{'saving':>9}{'rows/s':>10}{'seconds':>11}"
    lines = [head, titles + f"{'kv peak':>12}{'recomputed':>14}{'steps':>9}{'preempted':>11}"]
    for o in outcomes:
        line = f"{o.policy:<{width}}{o.computed_prompt_tokens:>15,}{o.saving:>9.1%}{o.rows_per_second:>10,.2f}"
        line += f"{o.seconds:>11,.1f}{o.kv_peak_tokens:>12,}{o.recomputed_tokens:>14,}{o.steps:>9,}{o.preemptions:>11,}"
        lines.append(line)
    failed = max(o.failed_rows for o in outcomes)
    if failed:
        lines.append(f"up to {failed:,} rows do not fit the KV pool; they are not in these figures")
    return "\n".join(lines)


def _say(message: str) -> None:
    print(f"umbel: {message}", file=sys.stderr)

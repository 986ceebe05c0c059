"""`umbel bench`: Umbel and its peers on the same workloads, in turn, with their answers checked and their seconds
compared with the floors."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from umbel.batch import engine_options
from umbel.batch.declared import Option
from umbel.errors import UsageError
from umbel.jobs.signals import STOPS

if TYPE_CHECKING:
    from umbel.bench.record import Record

_ENGINES = "By commas: umbel, vllm, llama-cpp, openvino, hf-static, hf-continuous; NAME-sorted; NAME:setting=value+..."
_WORKLOADS = "By commas: W1-W5 (W: all), L1-L3 (L), D512-D8192, MMLU, BANKING77, or files of rows; NAME@64: 64 rows."
_PEER = "A peer's interpreter, as vllm=/path/to/python; repeatable."
_PEER_MODEL = "A model that a peer reads instead, as llama-cpp=FILE.gguf; repeatable."
_PATIENCE = "Run a pair of engine and workload once only, if that took more seconds than this."
_CHECK = "Rows of each workload that transformers answers, too, to compare tokens; 0: none."
_WHOLE = "Time whole commands as well, so often: start of the process to the last row on disk."
_OUT = "Folder of the results, of logs, and of models in peers' own forms."
_FROM = "Show these results instead of measuring; repeatable."


def bench_command(
    model: Annotated[str | None, Option("-m", "--model", help="A directory, 'demo' or a hub id.")] = None,
    engines: Annotated[str, Option(help=_ENGINES)] = "umbel",
    workloads: Annotated[str, Option(help=_WORKLOADS)] = "W",
    repeats: Annotated[int, Option(help="Rounds, each with fresh content.", min=0)] = 5,
    seed: Annotated[int, Option(help="Of the first round's content; the warm-up has the one before.")] = 101,
    threads: Annotated[int, Option(help="Of every engine.", min=1)] = 2,
    dtype: engine_options.Dtype = "auto",
    out: Annotated[Path, Option(help=_OUT)] = Path("bench-out"),
    peer: Annotated[list[str] | None, Option(help=_PEER)] = None,
    peer_model: Annotated[list[str] | None, Option(help=_PEER_MODEL)] = None,
    data: Annotated[Path | None, Option(help="Folder of the task files of L3, MMLU and BANKING77.")] = None,
    tokenizer: Annotated[Path | None, Option(help="Folder of the tokenizer for them [the model's].")] = None,
    check_rows: Annotated[int, Option(help=_CHECK, min=0)] = 8,
    whole_command: Annotated[int, Option(help=_WHOLE, min=0)] = 0,
    patience: Annotated[float, Option(help=_PATIENCE)] = math.inf,
    timeout: Annotated[float, Option(help="Seconds after which a load or a run is given up.")] = 1200.0,
    page: Annotated[Path | None, Option(help="Write the tables into this Markdown page, too.")] = None,
    from_result: Annotated[list[str] | None, Option("--from", help=_FROM)] = None,
    as_json: Annotated[bool, Option("--json", help="Print the results as JSON, not Markdown.")] = False,
) -> None:
    """Run engines on workloads in rounds and compare them.

    Results go to OUT as bench-DATE.json, .md and .svg. An engine that is missing or fails is named, and the others go
    on. Peers run in their own virtual environments; docs/benchmarks.md says how to make them.
    """
    # Imported when the command runs, so that --help is quick.
    from umbel.bench.record import read_record
    from umbel.bench.rounds import Schedule
    from umbel.bench.session import Options, run_bench

    _check_page(page, [*(from_result or ()), *workloads.split(",")])
    if from_result:
        _show([read_record(Path(path)) for path in from_result], page, as_json=as_json)
        return
    if model is None:
        raise UsageError("give a model: umbel bench --model DIR")
    peers, models = _named("--peer", peer or ()), _named("--peer-model", peer_model or ())
    options = Options(
        model, engines, workloads, Schedule(repeats, seed, patience), out, dtype, threads, peers, models, data,
        tokenizer, check_rows, whole_command, timeout, ["umbel", *_typed()],
    )  # fmt: skip
    with _ending_all():
        record = run_bench(options, _say())
    _write(record)
    _show([record], page, as_json=as_json)


@contextlib.contextmanager
def _ending_all() -> Iterator[None]:
    """Let the first SIGTERM, SIGHUP or Ctrl-C unwind the stack, which ends all engines: paused ones would stay."""
    asked = False

    def leave(number: int, frame: object) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise SystemExit(128 + number)

    before = [signal.signal(number, leave) for number in STOPS]
    try:
        yield
    finally:
        for number, handler in zip(STOPS, before, strict=True):
            signal.signal(number, handler)


def _typed() -> Sequence[str]:
    """This command's line as typed, without the path of the program."""
    return sys.argv[1:]


def _named(option: str, pairs: Sequence[str]) -> dict[str, str]:
    """The values of NAME=VALUE options by name; raises UsageError for anything else, and for unknown peers."""
    from umbel.bench.engines import BASES
    from umbel.errors import nearest

    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not value:
            raise UsageError(f"{option} {pair}: give it as NAME=PATH")
        if name not in BASES:
            raise UsageError(f"{option} {pair}: no engine {name!r}{nearest(name, BASES)}; known: {', '.join(BASES)}")
        found[name] = value
    return found


def _say() -> Callable[[str], None]:
    began = time.monotonic()

    def say(line: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        print(f"{minutes:3d}:{seconds:02d}  {line}", file=sys.stderr, flush=True)

    return say


def _write(record: Record) -> None:
    """Write the tables and the chart beside the results."""
    from umbel.bench.chart import chart
    from umbel.bench.page import markdown, title
    from umbel.bench.summary import OURS, lines, reference

    assert record.path is not None  # a run has one
    picture, found = record.path.with_suffix(".svg"), lines(record)
    if found:
        picture.write_text(chart(found, title(record), reference(record) or OURS), encoding="utf-8")
    text = markdown(record, picture.name if found else None)
    record.path.with_suffix(".md").write_text(text, encoding="utf-8")


def _check_page(page: Path | None, files: Sequence[str]) -> None:
    """Raise UsageError when the page, or the first chart beside it, would overwrite an input or another file. Text that
    a page already holds is kept."""
    from umbel.jobs.paths import JobPaths

    if page is not None:
        read = JobPaths((), None, tuple(("--workloads or --from", Path(file)) for file in files))
        read.with_extra("--page", page, b"").with_extra("--page", page.with_name(f"{page.stem}-1.svg"), b"<svg ")


def _show(records: Sequence[Record], page: Path | None, *, as_json: bool) -> None:
    """Print the results, and put them into a page with a chart beside it."""
    from umbel.batch.extras import writing
    from umbel.bench.chart import chart
    from umbel.bench.page import markdown, title, write_between
    from umbel.bench.summary import OURS, lines, reference

    if page is not None:
        sections, pictures = [], 0
        for record in records:
            found = lines(record)
            pictures += bool(found)
            picture = page.with_name(f"{page.stem}-{pictures}.svg")
            if found:
                with writing("--page", picture) as out:
                    out.write(chart(found, title(record), reference(record) or OURS).encode())
            sections.append(markdown(record, picture.name if found else None))
        write_between(page, "\n".join(sections))
    text = [json.dumps(record.as_dict()) if as_json else markdown(record) for record in records]
    print("\n".join(text))

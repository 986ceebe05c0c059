"""Runs a job whose output is a stream: answers go to stdout or into a pipe as they come, and nothing is kept."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from umbel.batch.declared import declared
from umbel.batch.display import say, showing
from umbel.batch.extras import SUMMARY, open_stream
from umbel.batch.job_options import BudgetOptions, JobOptions, OutputOptions
from umbel.batch.job_run import write_summary
from umbel.batch.reading import LateTokenizer, model_names, read_options
from umbel.errors import UsageError
from umbel.ir.adapter import digests_of, names_of
from umbel.ir.soft_prompt import SoftPrompts
from umbel.jobs.begun import now
from umbel.jobs.fingerprint import fingerprint
from umbel.jobs.paths import JobPaths
from umbel.jobs.progress import Progress
from umbel.jobs.read.coming import ComingRows
from umbel.jobs.read.piped import PipedRows, comes_by_line
from umbel.jobs.read.prepare import WindowBuilder
from umbel.jobs.read.records import InputRow, ReadNotes, ReadOptions, note_texts
from umbel.jobs.read.source import Source
from umbel.jobs.read.source_files import open_source
from umbel.jobs.read.spool import copied, open_pipe, opened
from umbel.jobs.remote import is_uri
from umbel.jobs.stream import CheckedRows, Stream
from umbel.jobs.summary import Summary, warnings_of
from umbel.jobs.write.answers import Renderer
from umbel.jobs.write.openai_answers import Issuer
from umbel.models.adapters.modules import adapted_spec
from umbel.models.digest import hash_model
from umbel.models.families import read_spec, resolve_model
from umbel.plan.for_rows import techniques_of

NOT_KEPT = "answers go to a stream as they come; nothing is kept, so a stop loses what is not written yet"
_TAKEN = frozenset({"output", "order", "summary", "quiet", "verbose"})  # by streams, of the options of outputs


@dataclass(frozen=True, slots=True)
class _Forms:
    """How rows are read and answers are written; `notes` fills meanwhile."""

    options: ReadOptions
    tokenizer: LateTokenizer
    builder: WindowBuilder
    renderer: Renderer
    notes: ReadNotes

    @classmethod
    def of(cls, asked: JobOptions) -> _Forms:
        """Those of a job as it was asked for, the same as where its output is a file."""
        start, directory, served = now(), resolve_model(asked.model), asked.reading.served_model_name or ()
        spec = read_spec(directory, asked.config.model_impl, asked.config.generation_config)
        spec = adapted_spec(spec, asked.config)
        tokenizer = LateTokenizer(directory, start)
        names = model_names(asked.model, directory, served)
        defaults, known = asked.sampling.params(spec.sampling), frozenset(names)
        techniques = techniques_of(asked.config)
        vectors, loras = asked.vectors.params(spec.pooler), names_of(spec.adapters)
        options = read_options(
            defaults, asked.reading, spec.vocab_size, known, tokenizer.template, vectors, spec.pooler
        )
        completions = asked.sampling.of_completions(spec.sampling)
        options, settings = (
            replace(options, loras=loras, techniques=techniques, completions=completions),
            {**asked.config.identity, **digests_of(spec.adapters)},
        )
        identity = fingerprint({}, options, hash_model(directory), settings, version("umbel"), served)
        issuer = Issuer.of(identity, names[0], start, options.answers)
        notes = ReadNotes()
        sizes, bos = (spec.vocab_size, spec.max_positions), spec.bos_token_id
        soft = SoftPrompts.of(spec.adapters)
        builder = WindowBuilder(tokenizer, *sizes, bos=bos, notes=notes, pooler=spec.pooler, soft=soft)
        return cls(options, tokenizer, builder, Renderer(issuer, tokenizer.token_bytes, spec.pooler.labels), notes)


def run_stream(asked: JobOptions, began: float, closing: Callable[[Summary], Iterable[str]]) -> Summary:
    """Answer the rows of an input as they come. `began` is when the user began to wait, on the clock of
    `time.monotonic`; `closing` makes the lines that are shown at the end. Raises UmbelError, and BrokenPipeError when
    the reader of the output has left."""
    asked.check()
    _check_options(asked)
    forms, progress = _Forms.of(asked), Progress()
    if not asked.output.quiet:
        say([NOT_KEPT])
    shown = showing(progress, quiet=asked.output.quiet or sys.stdout.isatty())
    with _rows(asked.sources, forms) as rows, _lines_to(asked.output.target) as put, shown:
        summary = _answered(asked, forms, ComingRows(rows), put, progress, began)
    say(closing(summary))
    write_summary(summary, asked.output.summary)
    return summary


def _answered(
    asked: JobOptions, forms: _Forms, rows: ComingRows, put: Callable[[bytes], object], progress: Progress, began: float
) -> Summary:
    from umbel.engine.local import LocalEngine
    from umbel.engine.session import Session

    progress.enter("load")
    engine = LocalEngine(asked.config)
    progress.stats = engine.stats
    progress.enter("run")
    intake = cast(Any, CheckedRows(engine.model))
    in_order = asked.output.order == "input"
    stream = Stream(lambda: Session(engine, intake), rows, forms.builder, forms.renderer, put, in_order, progress)
    totals = stream.run()
    progress.enter("")
    forms.notes.take((*forms.tokenizer.notes, *forms.options.answers.chosen))
    stats, first = engine.stats(), engine.first_token
    return Summary(
        status="complete",
        rows=totals.rows,
        ok=totals.rows - totals.failed,
        failed=totals.failed,
        resumed=0,
        prompt_tokens=totals.prompt_tokens,
        computed_prompt_tokens=stats.computed_prompt_tokens,
        recomputed_tokens=stats.recomputed_tokens,
        output_tokens=totals.output_tokens,
        preemptions=stats.preemptions,
        ended_by_length=totals.cut,
        seconds={name: round(value, 4) for name, value in progress.seconds.items()},
        errors=totals.errors,
        warnings=warnings_of(totals, forms.notes, stream.open_ended),
        output=str(asked.output.target),
        first_token_seconds=None if first is None else round(first - began, 4),
        notes=note_texts(forms.notes.noted),
        steps=stats.steps,
    )


def _check_options(asked: JobOptions) -> None:
    """Raise UsageError for options that need a file, and for a summary that would overwrite the input."""
    groups = ((asked.output, OutputOptions), (asked.budget, BudgetOptions))
    given = [o for group, kind in groups for o in declared(kind) if getattr(group, o.name) != o.default]
    names = [next(n for n in o.names if n.startswith("--")) for o in given if o.name not in _TAKEN]
    names += ["--strict"] if asked.reading.strict else []
    names += ["--layout"] if asked.reading.layout != "off" else []
    names += ["--data-parallel-size"] if asked.config.data_parallel_size > 1 else []
    names += ["--executor"] if asked.config.executor != "local" else []
    if names:
        raise UsageError(
            f"{names[0]}: not where answers go to {asked.output.target} as they come and nothing is kept; give a file"
        )
    if asked.output.summary is not None:
        inputs = tuple(Path(name) for name in asked.sources if not is_uri(name))
        JobPaths(inputs, None).with_extra("--summary", asked.output.summary, SUMMARY)


@contextmanager
def _rows(names: Sequence[str], forms: _Forms) -> Iterator[Iterator[InputRow]]:
    """The rows of an input; those of a single pipe as they come."""
    pipe = open_pipe(Path(names[0])) if len(names) == 1 and not is_uri(names[0]) else None
    if pipe is not None:
        with tempfile.TemporaryDirectory(prefix=".umbel-input-") as directory:
            yield _from_pipe(cast(BufferedReader, pipe), Path(names[0]), Path(directory), forms)
        return
    with opened(names) as files:
        source = open_source(files, forms.options, forms.notes)
        source.parsers()
        yield source.rows()


def _from_pipe(pipe: BufferedReader, name: Path, directory: Path, forms: _Forms) -> Iterator[InputRow]:
    if comes_by_line(pipe):
        yield from PipedRows(pipe, str(name), forms.options, forms.notes).rows()
        return
    with copied(pipe, name, directory) as copy:
        yield from Source(copy, forms.options, forms.notes).rows()


@contextmanager
def _lines_to(output: Path) -> Iterator[Callable[[bytes], None]]:
    """What writes lines to a stream at once."""
    with open_stream(Path("/dev/stdout") if str(output) == "-" else output) as stream:
        descriptor = stream.fileno()

        def put(lines: bytes) -> None:
            left = memoryview(lines)
            while left:
                left = left[os.write(descriptor, left) :]

        yield put

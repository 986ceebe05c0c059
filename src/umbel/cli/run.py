"""`umbel run`: a file of prompts in, a file of answers out, resumable at any moment."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from umbel.cli import engine_options
from umbel.cli.arguments import Argument, Option
from umbel.cli.engine_options import EngineOptions
from umbel.config import EngineConfig
from umbel.errors import InvalidRequest, UsageError
from umbel.ir.budget import Budget, seconds_of
from umbel.ir.stops import GRACE_SECONDS

if TYPE_CHECKING:
    from umbel.jobs.summary import Summary

_INPUT = "JSON lines (plain or OpenAI), JSON, CSV, TSV, Parquet, Arrow, .txt; .gz, .zst; - is standard input."
_RETRY = "Run rows again that failed for want of KV memory or by the model; keep the others."
_PROFILE = "Tell where the time went; a timeline goes to PATH, or to OUTPUT.profile.json."
_CHOICES = "Give each row the most likely of some labels instead of an answer: 'positive,negative'."
_CALIBRATION = "With --choices: a prompt without content, behind which all of them are held to be equally likely."
_GRACE = "After a stop, let rows that are near their end go on so long."
_OUTPUT = "Where the answers go: .jsonl, .csv, .tsv (also .gz, .zst), .parquet, .arrow or .feather, by its name."
_KEEP = "Columns that come back beside the answers: all, none, or names with commas [all; not for OpenAI lines]."
_ID = "The column that gives a row its custom_id [custom_id, else its number]."
_ERRORS = "Write the rows that failed to this file; the output has the others."


def run_command(
    model: Annotated[str, Option("-m", "--model", help="'demo', a directory, or a hub id.")],
    output: Annotated[Path, Option("-o", "--output", "--output-file", help=_OUTPUT)],
    file: Annotated[Path | None, Argument(help=_INPUT)] = None,
    input_file: Annotated[Path | None, Option("-i", "--input-file", help="The same as FILE.")] = None,
    max_tokens: Annotated[
        int | None, Option(help="For rows that set none [context's end, text completions 16].")
    ] = None,
    temperature: Annotated[float | None, Option(help="For rows that set none [1.0].")] = None,
    top_p: Annotated[float | None, Option(help="For rows that set none [1.0].")] = None,
    top_k: Annotated[int | None, Option(help="For rows that set none [0: all].")] = None,
    stop: Annotated[list[str] | None, Option(help="Stop string for rows that set none; repeatable.")] = None,
    seed: Annotated[int, Option(help="Seed of rows that set none.")] = 0,
    prompt: Annotated[str | None, Option(help="Build prompts from columns: 'Classify: {text}'.")] = None,
    chat: Annotated[bool, Option("--chat", help="With --prompt: put it into a user message.")] = False,
    keep_columns: Annotated[str | None, Option("--keep", help=_KEEP)] = None,
    id_column: Annotated[str | None, Option("--id", help=_ID, metavar="COLUMN")] = None,
    include_prompt: Annotated[bool, Option("--include-prompt", help="Write the prompt on its row, too.")] = False,
    choices: Annotated[str | None, Option(help=_CHOICES)] = None,
    calibration_prompt: Annotated[str | None, Option(help=_CALIBRATION)] = None,
    served_model_name: Annotated[list[str] | None, Option(help="Names that rows may call the model.")] = None,
    engine: EngineOptions = EngineOptions(),
    device: engine_options.Device = "auto",
    load_format: Annotated[str, Option(help="auto, safetensors or dummy (seeded random weights).")] = "auto",
    deadline: Annotated[str | None, Option(help="Stop in time after 90, 90s, 15m or 2h.")] = None,
    max_output_tokens_total: Annotated[int | None, Option(help="Generate no more tokens in this run.")] = None,
    grace: Annotated[str, Option(help=_GRACE)] = f"{GRACE_SECONDS:.0f}s",
    errors: Annotated[Path | None, Option(help=_ERRORS, metavar="FILE")] = None,
    order: Annotated[Literal["input", "finish"], Option(help="Order of the output.")] = "input",
    summary: Annotated[Path | None, Option(help="Write the closing figures to this file, as JSON.")] = None,
    profile: Annotated[str | None, Option(help=_PROFILE, metavar="PATH", bare=True)] = None,
    strict: Annotated[bool, Option("--strict", help="Refuse the whole file if any row is at fault.")] = False,
    fresh: Annotated[bool, Option("--fresh", help="Forget an earlier run and replace its output.")] = False,
    retry_failed: Annotated[bool, Option("--retry-failed", help=_RETRY)] = False,
    quiet: Annotated[bool, Option("-q", "--quiet", help="No progress, only warnings and errors.")] = False,
    own_process: bool = False,
) -> int:
    """Run every row of FILE through a model and write one answer per row.

    Every input row gives exactly one output row, an answer or a named error. Finished rows are kept in OUTPUT.umbel as
    they come: after a crash or a stop, the same command continues. Exit codes: 0 all rows answered, 2 usage, 3 some
    rows failed, 4 input invalid, 5 stopped by --deadline or --max-output-tokens-total (the output has an error row for
    each row that was not run; run again to go on), 75 stopped by Ctrl-C, SIGTERM or
    SIGHUP (run again to go on), 130 a second Ctrl-C.
    """
    sampling = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "top_k": top_k, "stop": stop}
    config = engine.config(model, device=device, seed=seed, load_format=load_format)
    reading = {"template": prompt, "chat": chat, "strict": strict, "names": served_model_name or ()}
    reading |= {"choices": choices, "calibration_prompt": calibration_prompt}
    reading |= {"keep": keep_columns, "id": id_column, "include_prompt": include_prompt}
    paths = _paths(file, input_file, output, summary)
    paths["trace"] = _trace_path(profile, output)
    _check_extras(paths)
    how = {"order": order, "fresh": fresh, "retry_failed": retry_failed, "grace": seconds_of(grace, "--grace")}
    how |= {"errors": errors}
    budget = Budget.of(deadline, max_output_tokens_total)
    return _run(config, sampling, reading, paths, how, budget, quiet=quiet, own_process=own_process)


def _paths(file: Path | None, input_file: Path | None, output: Path, summary: Path | None) -> dict[str, Any]:
    if (file is None) == (input_file is None):
        raise UsageError("give one input: umbel run FILE -o OUT --model M")
    return {"input": file or input_file, "output": output, "summary": summary}


def _run(
    config: EngineConfig,
    sampling: dict[str, Any],
    reading: dict[str, Any],
    paths: dict[str, Any],
    how: dict[str, Any],
    budget: Budget,
    *,
    quiet: bool,
    own_process: bool,
) -> int:
    """Run the job. Times count from the start of the process where it exists for this command only."""
    from umbel.cli.display import closing_lines, say, showing
    from umbel.cli.job_setup import build_job
    from umbel.jobs.read.spool import readable

    recorder, began = None, process_start() if own_process else time.monotonic()
    if paths["trace"] is not None:
        from umbel.profile.recorder import Recorder

        recorder = Recorder(int(began * 1e9))
    with readable(paths["input"], paths["output"].parent) as source:
        try:
            job = build_job(config, sampling, reading, source, paths["output"], **how, budget=budget, profile=recorder)
        except InvalidRequest as error:
            raise UsageError(f"--{(error.param or '').replace('_', '-')}: {error.message}") from None
        job.began, job.last = began, own_process
        with showing(job.progress, quiet=quiet):
            result = job.run()
    say(closing_lines(result, quiet=quiet))
    _write_summary(result, paths["summary"])
    if recorder is not None:
        from umbel.cli.profile import show_profile

        show_profile(recorder, paths["trace"])
    return result.exit_code


def _trace_path(asked: str | None, output: Path) -> Path | None:
    if asked is None:
        return None
    from umbel.cli.profile import trace_path

    return trace_path(asked, output)


def _check_extras(paths: dict[str, Any]) -> None:
    """Raise UsageError when a file that was asked for beside the answers would overwrite another."""
    from umbel.cli.extras import SUMMARY, TRACE
    from umbel.jobs.paths import check_paths

    job = check_paths(paths["input"], paths["output"])
    for option, path, begins in (("--summary", paths["summary"], SUMMARY), ("--profile", paths["trace"], TRACE)):
        if path is not None:
            job = job.with_extra(option, path, begins)


def process_start() -> float:
    """When this process began, on the clock of `time.monotonic`; now, where the system does not report it."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        age = 0.0
    return time.monotonic() - max(0.0, age)


def _write_summary(result: Summary, path: Path | None) -> None:
    import orjson

    from umbel.cli.extras import writing

    if path is not None:
        with writing("--summary", path) as out:
            out.write(orjson.dumps(result.as_dict(), option=orjson.OPT_INDENT_2) + b"\n")

"""What `umbel run` runs and `umbel plan` plans: the options that both take, in groups, and what becomes of them.

An option is a line in its group; a command that takes `JobOptions` takes it too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from umbel.batch.declared import Argument, Option, declared
from umbel.batch.engine_options import EngineOptions
from umbel.batch.forms import form_of
from umbel.batch.pooling_options import PoolingOptions
from umbel.config import EngineConfig
from umbel.errors import InvalidRequest, UsageError
from umbel.ir.stops import GRACE_SECONDS
from umbel.text.answers.names import CallFormatName, ReasoningFormatName

if TYPE_CHECKING:
    from umbel.ir.budget import Budget
    from umbel.ir.params import SamplingParams

_INPUT = "Files, 'patterns*', URIs: JSON lines (also OpenAI), JSON, CSV, TSV, Parquet, Arrow, .txt, packed; - is stdin."
_OUTPUT = "Where answers go: .jsonl, .csv, .tsv (also .gz, .zst), .parquet, .arrow, .feather; - is stdout, row by row."
_PROMPT = "Build prompts from columns: 'Classify: {text}'. \\n and \\t are a line end and a tab; @FILE reads it."
_SYSTEM = "A system message, written like --prompt, for chats that have none; prompts become chats by it."
_LAYOUT = "Order of lines of --prompt and of documents: as they come, or as most is shared; auto: if it saves 1 %."
_DOCUMENTS = "The column that holds a row's documents, texts or objects, for --prompt [documents]."
_DOCUMENT = "What a document becomes, from its fields: '{title}: {text}' [{text}]."
_PIN = "Columns whose lines stay where they are: text,title."
_VARIABLES = "Variables of the chat template, for all chats: '{\"enable_thinking\": false}'; a row's own come first."
_KEEP = "Columns that come back beside the answers: all, none, or names with commas [all; not for OpenAI lines]."
_ID = "The column that gives a row its custom_id [custom_id, else its number]."
_ERRORS = "Write the rows that failed to this file; the output has the others."
_GRACE = "After a stop, let rows that are near their end go on so long."
_MOST = "Most tokens of an answer [context's end, text completions 16]."
_LOOPS = 'End answers that repeat themselves: \'{"max_pattern_size": 20, "min_count": 4}\'.'
_PRICE = "What an hour of the machine costs: plan, closing lines and report say what the job does."
_DAMAGE = "With --allow-lossy: take the fastest technique that was measured to lose no more right answers: 1%."
_RETRY = "Run rows again that failed for want of KV memory or by the model; keep the others."
_PROFILE = "Tell where the time went; a timeline goes to FILE, or to OUTPUT.profile.json."
_CHOICES = "Give each row the most likely of some labels instead of an answer: 'positive,negative'."
_CALIBRATION = "With --choices: a prompt without content, behind which all of them are held to be equally likely."
_PARSER = "How the model writes tool calls, in answers to chats; auto: as its chat template does."
_THOUGHT = "How it writes reasoning before the content; auto: as its chat template does."
MACHINE = "this (measured), h200, h100, a100, a100-40gb, l40s, l4, a10 or rtx4090; 2xh100 are two."
_MODEL = "'demo', a directory, or a hub id; to plan, config.json is enough, or a shape such as llama-3.1-8b."
_TOKENIZER = "Directory of tokenizer.json, for text [the model's]."

LayoutName = Literal["off", "auto", "columns", "documents"]


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """Sampling, for rows that do not set it themselves.

    Example: --temperature 0.7 --top-p 0.9 --max-tokens 200 --stop END
    """

    max_tokens: Annotated[int | None, Option("--max-tokens", "--max-completion-tokens", help=_MOST)] = None
    temperature: Annotated[float | None, Option(help="0 takes the most likely token [1.0].")] = None
    top_p: Annotated[float | None, Option(help="Sample from the most likely tokens of this share [1.0].")] = None
    top_k: Annotated[int | None, Option(help="Sample from so many of the most likely tokens [0: all].")] = None
    min_p: Annotated[float | None, Option(help="Leave out tokens below this share of the likeliest one [0.0].")] = None
    presence_penalty: Annotated[float | None, Option(help="Less for tokens that the answer has [0.0].")] = None
    frequency_penalty: Annotated[float | None, Option(help="Less for each time that it has them [0.0].")] = None
    repetition_penalty: Annotated[float | None, Option(help="Divide for tokens of prompt and answer [1.0].")] = None
    logit_bias: Annotated[
        str | None, Option(help="Add to tokens, at most 100: '{\"50256\": -100}'.", metavar="JSON")
    ] = None
    allowed_token_ids: Annotated[list[int] | None, Option(help="The only tokens of answers.")] = None
    bad_words: Annotated[list[str] | None, Option("--bad-words", help="A text to leave out; repeatable.")] = None
    repetition_detection: Annotated[str | None, Option(help=_LOOPS, metavar="JSON")] = None
    n: Annotated[int | None, Option(help="Answers of each row [1].")] = None
    stop: Annotated[list[str] | None, Option(help="A text that ends an answer; repeatable.")] = None
    stop_token_ids: Annotated[
        list[int] | None, Option("--stop-token-id", "--stop-token-ids", help="Tokens that do: 2,7; repeatable.")
    ] = None
    include_stop_str_in_output: Annotated[
        bool, Option("--include-stop-str-in-output", help="Keep the stop string at the end of the answer.")
    ] = False
    ignore_eos: Annotated[bool, Option("--ignore-eos", help="Go on behind the model's end token.")] = False
    min_tokens: Annotated[int | None, Option(help="Fewest tokens of an answer [0].")] = None
    logprobs: Annotated[
        int | None, Option(help="Log-probabilities: of the tokens written and so many likely ones.")
    ] = None
    logprob_token_ids: Annotated[list[int] | None, Option(help="Those of these tokens instead.")] = None
    prompt_logprobs: Annotated[int | None, Option(help="The same of the prompt's tokens.")] = None
    keep_special_tokens: Annotated[
        bool, Option("--no-skip-special-tokens", help="Show end tokens and the like in the text.")
    ] = False
    truncation: Annotated[
        Literal["error", "skip", "left", "right", "middle"] | None,
        Option(help="What becomes of prompts that are too long: an error, no answer, or where they are cut [error]."),
    ] = None
    truncate_prompt_tokens: Annotated[
        int | None, Option(help="Most tokens of a prompt [what leaves room for the answer]; alone it cuts on the left.")
    ] = None
    seed: Annotated[int, Option(help="Seed of rows that have none of their own.")] = 0
    json_schema: Annotated[Path | None, Option(help="A file: answers are JSON of this schema.")] = None
    regex: Annotated[str | None, Option(help="Answers match this regular expression as a whole.", written=True)] = None
    grammar: Annotated[Path | None, Option(help="A file: answers are of this grammar, in Lark or GBNF.")] = None

    def params(self, of_model: Sequence[tuple[str, float]] = ()) -> SamplingParams:
        """The defaults of rows: what was given, else those that the model states. Raises UsageError for a value that
        cannot be."""
        from umbel.ir.params import SamplingParams

        given = asdict(self)
        del given["seed"]  # of the job: rows draw by it and their key
        form = form_of(given.pop("json_schema"), given.pop("regex"), given.pop("grammar"))
        given["skip_special_tokens"] = not given.pop("keep_special_tokens")
        try:
            for name in ("logit_bias", "repetition_detection"):
                given[name] = None if given[name] is None else json_of(name, given[name])
            asked = dict(of_model) | {name: value for name, value in given.items() if value not in (None, [])}
            return SamplingParams(**asked, structured_outputs=form)
        except InvalidRequest as error:
            raise UsageError(f"--{(error.param or '').replace('_', '-')}: {error.message}") from None

    def of_completions(self, of_model: Sequence[tuple[str, float]]) -> SamplingParams:
        """The same for rows of /v1/completions: the model's own limit does not take the place of the 16 tokens that
        they have without one, as in vLLM."""
        return self.params([(name, value) for name, value in of_model if name != "max_tokens"])


def json_of(name: str, text: str) -> object:
    """A value that is written as JSON. Raises InvalidRequest."""
    from umbel.ir.limits import refuse, shown

    try:
        return json.loads(text)
    except ValueError:
        refuse("invalid_value", name, f"{shown(text)} is not JSON")


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """Prompts and how the input is read.

    Example: --prompt 'Is it spam? {body}' --system @rules.txt --chat --id mail
    """

    prompt: Annotated[str | None, Option(help=_PROMPT, written=True)] = None
    chat: Annotated[bool, Option("--chat", help="With --prompt: put it into a user message.")] = False
    system: Annotated[str | None, Option(help=_SYSTEM, written=True)] = None
    documents: Annotated[str | None, Option(help=_DOCUMENTS, metavar="COLUMN")] = None
    document_format: Annotated[str | None, Option(help=_DOCUMENT, written=True)] = None
    layout: Annotated[LayoutName, Option(help=_LAYOUT)] = "off"
    pin: Annotated[str | None, Option(help=_PIN, several=True, metavar="COLUMNS")] = None
    chat_template_kwargs: Annotated[
        str | None,
        Option(
            *("--chat-template-kwargs", "--default-chat-template-kwargs"), help=_VARIABLES, metavar="JSON", written=True
        ),
    ] = None
    keep_columns: Annotated[str | None, Option("--keep", help=_KEEP, several=True)] = None
    id_column: Annotated[str | None, Option("--id", help=_ID, metavar="COLUMN")] = None
    include_prompt: Annotated[bool, Option("--include-prompt", help="Write the prompt on its row, too.")] = False
    choices: Annotated[str | None, Option(help=_CHOICES, several=True)] = None
    calibration_prompt: Annotated[str | None, Option(help=_CALIBRATION, written=True)] = None
    tool_call_parser: Annotated[CallFormatName | None, Option(help=_PARSER)] = None
    reasoning_parser: Annotated[ReasoningFormatName | None, Option(help=_THOUGHT)] = None
    served_model_name: Annotated[list[str] | None, Option(help="Names that rows may call the model.")] = None
    strict: Annotated[bool, Option("--strict", help="Refuse the whole file if any row is at fault.")] = False


@dataclass(frozen=True, slots=True)
class BudgetOptions:
    """Budget: what fits best is done first; the same command goes on later.

    Example: --deadline 2h --grace 30s
    """

    deadline: Annotated[str | None, Option(help="Stop in time after 90, 90s, 15m or 2h.", metavar="TIME")] = None
    max_output_tokens_total: Annotated[int | None, Option(help="Generate no more tokens in this run.")] = None
    grace: Annotated[str, Option(help=_GRACE, metavar="TIME")] = f"{GRACE_SECONDS:.0f}s"
    price: Annotated[float | None, Option(help=_PRICE, min=0)] = None
    max_damage: Annotated[str | None, Option(help=_DAMAGE, metavar="SHARE")] = None

    def budget(self) -> Budget:
        """The limits of the run. Raises UsageError."""
        from umbel.ir.budget import Budget

        return Budget.of(self.deadline, self.max_output_tokens_total)


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Output.

    Example: -o answers.parquet --errors failed.jsonl --summary figures.json
    """

    output: Annotated[str | None, Option("-o", "--output", "--output-file", help=_OUTPUT, metavar="FILE")] = None
    errors: Annotated[Path | None, Option(help=_ERRORS)] = None
    order: Annotated[
        Literal["input", "finish"], Option(help="Order of the output; finish: OUT.part grows as rows finish.")
    ] = "input"
    summary: Annotated[Path | None, Option(help="Write the closing figures to this file, as JSON.")] = None
    profile: Annotated[str | None, Option(help=_PROFILE, metavar="FILE", bare=True)] = None
    resume: Annotated[bool, Option("--resume", help="Continue an earlier run, which happens without it, too.")] = False
    fresh: Annotated[
        bool,
        Option("--overwrite", "--fresh", help="Forget an earlier run and replace its output.", destroys=True),
    ] = False
    retry_failed: Annotated[bool, Option("--retry-failed", help=_RETRY)] = False
    quiet: Annotated[bool, Option("-q", "--quiet", help="No progress, only warnings and errors.")] = False
    verbose: Annotated[bool, Option("-v", "--verbose", help="The whole plan: decisions, refusals, forest.")] = False

    @property
    def target(self) -> Path:
        """The file for the answers. Raises UsageError when it was not said."""
        if self.output is None:
            raise UsageError("-o/--output is missing; see umbel run --help")
        return Path(self.output.removeprefix("file://"))


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """The plan (umbel plan, or with --dry-run).

    Example: --machine h200 --html plan.html --open
    """

    machine: Annotated[str, Option(help=f"The machine to plan for: {MACHINE}")] = "this"
    tokenizer: Annotated[Path | None, Option(help=_TOKENIZER)] = None
    as_json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False
    html: Annotated[Path | None, Option("--html", help="Write a page with pictures to this file.")] = None
    open_page: Annotated[bool, Option("--open", help="Show the page in a browser [FILE.plan.html here].")] = False

    def page_of(self, source: str) -> Path | None:
        """Where the page of a plan goes, None where there is none to write."""
        return self.html or (Path(f"{Path(source).name}.plan.html") if self.open_page else None)

    def check_unused(self) -> None:
        """Raise UsageError where an option asks for a plan and a run is asked for."""
        for option in declared(ViewOptions):
            if getattr(self, option.name) != option.default:
                raise UsageError(f"{option.names[-1]} is about a plan: take umbel plan, or --dry-run")


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Job.

    Example: -m Qwen/Qwen3-0.6B
    """

    model: Annotated[str, Option("-m", "--model", help=_MODEL)]
    file: Annotated[list[str] | None, Argument(help=_INPUT)] = None
    input_file: Annotated[
        list[str] | None, Option("-i", "--input-file", help="The same as FILE; repeatable.", metavar="FILE")
    ] = None
    sampling: SamplingOptions = SamplingOptions()
    vectors: PoolingOptions = field(default_factory=PoolingOptions)
    reading: ReadingOptions = ReadingOptions()
    budget: BudgetOptions = BudgetOptions()
    engine: EngineOptions = field(default_factory=EngineOptions)
    output: OutputOptions = OutputOptions()

    @property
    def sources(self) -> list[str]:
        """The names of the input's files, patterns resolved. Raises UsageError unless there are any."""
        from umbel.jobs.read.inputs import expanded

        found = [*(self.file or ()), *(self.input_file or ())]
        if not found:
            raise UsageError("give an input: umbel run FILE -o OUT --model M")
        return expanded(found, [Path(path) for path in (self.output.output, self.output.errors) if path is not None])

    @property
    def title(self) -> str:
        """The input in a few words: its file, or the first one and how many more."""
        from umbel.jobs.read.inputs import title_of

        return title_of([Path(name).name for name in self.sources])

    @property
    def files(self) -> str:
        """The names of the input and, where there is one, the output, for people."""
        output = self.output.output
        return self.title if output is None else f"{self.title} to {Path(output).name}"

    @property
    def config(self) -> EngineConfig:
        """The settings of the engine. Raises UsageError."""
        return self.engine.config(self.model, seed=self.sampling.seed)

    def check(self) -> None:
        """Raise UsageError for options that contradict one another."""
        if self.output.resume and self.output.fresh:
            raise UsageError("--resume continues an earlier run and --overwrite forgets it: give one of them")

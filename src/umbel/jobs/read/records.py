"""The records that readers produce for each input row, the options they read by, and what they notice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

from umbel.ir.branches import Branches
from umbel.ir.chat import PLAIN_CHAT, ChatOptions, Message
from umbel.ir.params import SamplingParams
from umbel.ir.pooling import WRITER, Pooler, PoolingParams
from umbel.ir.request import Request, RowError
from umbel.ir.row_techniques import ALL_ROWS, RowTechniques
from umbel.jobs.read.formats.documents import DocumentStyle
from umbel.plan.layout import LayoutChoice
from umbel.text.answers.base import NO_TYPES, Types
from umbel.text.answers.formats import WHOLE, AnswerReader

ANSWER_NAMES = frozenset(
    (
        *("custom_id", "text", "token_ids", "finish_reason", "logprobs", "choices", "usage", "prompt_logprobs"),
        *("scores", "choice", "choice_logprobs", "choice_probabilities", "error", "reasoning_content", "tool_calls"),
        *("embedding", "probs"),
    )
)
"""What a plain row of the output is made of, beside the columns of the input that come back."""
MAX_NOTED = 100  # kinds of notes, and names of unknown fields: enough to see what is wrong


class Style(IntEnum):
    """The dialect a row came in and its answer goes out in."""

    PLAIN = 0
    CHAT = 1
    COMPLETION = 2
    ECHO = 3  # a completion behind its prompt
    TOOLS = 4  # a chat that may call tools
    CALLS = 5  # a chat whose answer is a list of calls
    PLAIN_CHAT = 6  # plain rows that are chats, of which answers may have parts: as CHAT, TOOLS and CALLS
    PLAIN_TOOLS = 7
    PLAIN_CALLS = 8
    EMBEDDINGS = 9  # these four want vectors, and what is made of them
    CLASSIFY = 10
    SCORE = 11
    RERANK = 12

    @property
    def is_plain(self) -> bool:
        """Whether its answer is a plain object."""
        return self == Style.PLAIN or Style.PLAIN_CHAT <= self <= Style.PLAIN_CALLS

    @property
    def as_plain(self) -> Style:
        """The style of a chat where it is a plain row."""
        return _AS_PLAIN[self]

    @property
    def may_call(self) -> bool:
        """Whether its answer is read for calls of tools."""
        return self in (Style.TOOLS, Style.PLAIN_TOOLS)

    @property
    def must_call(self) -> bool:
        """Whether a grammar holds its answer to calls."""
        return self in (Style.CALLS, Style.PLAIN_CALLS)


_AS_PLAIN = MappingProxyType(
    {Style.CHAT: Style.PLAIN_CHAT, Style.TOOLS: Style.PLAIN_TOOLS, Style.CALLS: Style.PLAIN_CALLS}
)


class RowHead(NamedTuple):  # of which a job makes one a row, in a third of the time that a frozen dataclass takes
    """What a row of the output begins with, whatever its answer: the number of the row in the input, its id, its
    dialect and its columns, as the inside of a JSON object; how many tokens were cut from its prompt; and what the
    arguments of its tools are."""

    row: int
    custom_id: str | None
    style: Style
    columns: bytes = b""
    cut: int = 0
    types: Types = NO_TYPES


class InputRow(NamedTuple):  # likewise
    """One row of the input: `request`, or `error` when it cannot be run; never both, never neither.

    `row` counts rows from 0 (blank lines are no rows), `line` counts physical lines (of a table: its rows) from 1.
    `custom_id` is None only when the row has none that can be read; it is then null in the output too. `columns` come
    back on its row of the output: the inside of a JSON object. `file` is the name of its file, where that is one of
    several. `cut` tokens of its prompt were left out.
    """

    row: int
    line: int
    custom_id: str | None
    style: Style
    request: Request | None = None
    error: RowError | None = None
    explicit_id: bool = False
    columns: bytes = b""
    file: str | None = None
    cut: int = 0

    @property
    def where(self) -> str:
        """Its line, as messages name it."""
        return line_of(self.line, self.file)

    @property
    def head(self) -> RowHead:
        """What its row of the output begins with."""
        return RowHead(self.row, self.custom_id, self.style, self.columns, self.cut)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read an input.

    `defaults`: sampling fields for rows that do not set them.
    `template`: makes prompts from columns.
    `chat`: put each templated prompt into a user message.
    `system`: makes the system message of chats that have none; prompts become chats by it.
    `strict`: refuse unknown fields.
    `width`: the model's vocabulary width; None leaves its checks out.
    `models`: the names that the model answers to; None leaves the check out.
    `branches`: the choices of rows that name none.
    `keep`: names of the columns that come back on the rows of the output; None for all, but what a JSON line asks for.
    `id_column`: the column that gives the custom id; None for `custom_id`, or else the number of the row.
    `include_prompt`: the prompt comes back, too, as it was put together.
    `answers`: how tool calls and reasoning are read from answers to chats.
    `chat_options`: what chats are rendered with that say nothing else.
    `vectors`: what plain rows get instead of answers that ask for nothing else; `pooler`: what the model gives.
    `loras`: the names of the adapters that rows may ask for; `techniques`: of what they may take a part.
    `completions`: `defaults` of rows of /v1/completions; None: the same.
    `layout`: what became of the order of the template's lines; None where it was not looked at.
    `documents`: how the documents of rows become a column of the template.
    `apart`: the places of documents in prompts are noted, so that they can be computed apart.
    `any_url`: lines of an OpenAI batch file may go to any of its endpoints, not to that of its first one alone.
    """

    defaults: SamplingParams = field(default_factory=SamplingParams)
    template: str | None = None
    chat: bool = False
    strict: bool = False
    width: int | None = None
    models: frozenset[str] | None = None
    branches: Branches | None = None
    keep: tuple[str, ...] | None = None
    id_column: str | None = None
    include_prompt: bool = False
    system: str | None = None
    answers: AnswerReader = WHOLE
    chat_options: ChatOptions = PLAIN_CHAT
    vectors: PoolingParams | None = None
    pooler: Pooler = WRITER
    loras: tuple[str, ...] = ()
    techniques: RowTechniques = ALL_ROWS
    completions: SamplingParams | None = None
    layout: LayoutChoice | None = None
    documents: DocumentStyle = field(default_factory=DocumentStyle)
    any_url: bool = False
    apart: bool = False

    @property
    def said(self) -> tuple[str, ...]:
        """Notes on how the input is read."""
        laid = "" if self.layout is None else self.layout.text()
        return (*self.answers.chosen, *([f"layout: {laid}"] if laid else []))

    def defaults_of(self, style: Style) -> SamplingParams:
        """The sampling fields of rows that do not set them."""
        return self.completions if style == Style.COMPLETION and self.completions is not None else self.defaults


@dataclass(slots=True)
class ReadNotes:
    """Things noticed while rows were read and tokenised that are no errors; one of these for a whole job.

    `ignored_fields`: rows by unknown field name.
    `noted`: rows by the text of a note.

    At most 100 of each are kept. Notes are shown by `umbel plan`, when a run starts and when it ends, and by `umbel
    report`.
    """

    ignored_fields: Counter[str] = field(default_factory=Counter)
    noted: dict[str, int] = field(default_factory=dict)

    def ignored(self, names: list[str]) -> None:
        """Count fields that were not read."""
        for name in names:
            if name in self.ignored_fields or len(self.ignored_fields) < MAX_NOTED:
                self.ignored_fields[name] += 1

    def take(self, texts: Iterable[str]) -> None:
        """Add notes that are not about single rows, each of them once."""
        for text in texts:
            self.note(text, rows=0)

    def note(self, text: str, rows: int = 1) -> None:
        """Add a note that holds for so many more rows.

        The text continues after the count: "/v1/completions without max_tokens: 16 are generated, as by OpenAI" is
        printed as "3 rows: /v1/completions without ...".
        """
        if text in self.noted or len(self.noted) < MAX_NOTED:
            self.noted[text] = self.noted.get(text, 0) + rows

    def clear(self) -> None:
        """Discard all notes, before all rows are read again."""
        self.ignored_fields.clear()
        self.noted.clear()

    def with_earlier(self, earlier: Mapping[str, int] | None) -> dict[str, int]:
        """Notes of this run and of earlier ones of the same job (`noted` as it was). A resume may read a row again or
        leave it out, so a note counts the rows of the run that met most."""
        found = dict(earlier or {})
        for text, rows in dict(self.noted).items():  # a copy, as windows are read in another thread
            found[text] = max(rows, found.get(text, 0))
        return found


def note_texts(noted: Mapping[str, int]) -> tuple[str, ...]:
    """Notes as they are shown, those about single rows last."""
    counts = [(f"{rows:,} row{'' if rows == 1 else 's'}: " if rows else "", text) for text, rows in noted.items()]
    return tuple(count + text for count, text in sorted(counts, key=lambda found: bool(found[0])))


def strict_message(faults: Sequence[InputRow], rows: int) -> str:
    """The message with which --strict refuses an input of so many rows."""
    found = sorted((row for row in faults if row.error is not None), key=lambda row: row.row)
    listed = [described(row) for row in found[:10]]
    more = [f"... and {len(found) - 10} more"] if len(found) > 10 else []
    head = f"--strict: {len(found):,} of {rows:,} row{'' if rows == 1 else 's'} are at fault, nothing was run:"
    return "\n  ".join([head, *listed, *more])


def line_of(line: int, file: str | None) -> str:
    """A line as messages name it; `file` is the name of its file, where there are several."""
    return f"line {line}" if file is None else f"line {line} of {file}"


def described(row: InputRow) -> str:
    """A row at fault in a line: where it is, the code, the message."""
    if row.error is None:
        return row.where
    return f"{row.where}: {row.error.code}: {row.error.message.removeprefix(f'line {row.line}: ')}"


def n_chars_of(request: Request) -> int:
    """The number of characters in its texts; a prompt of token ids has none."""
    if request.messages is not None:
        return sum(map(_n_chars_in, request.messages))
    return len(request.prompt) if isinstance(request.prompt, str) else 0


def _n_chars_in(message: Message) -> int:
    content = message.get("content") or ""
    return len(content) if isinstance(content, str) else sum(len(part["text"]) for part in content)

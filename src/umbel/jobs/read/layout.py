"""The lines of a prompt template, and the documents of rows, in another order (`--layout`), by which rows share more of
their prompts.

It changes prompts, and so answers; it is exact for the prompts that it makes. A line with a column may change places
with its neighbours that have one; lines without any, and those with a pinned column, stay where they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from umbel.errors import UsageError, nearest
from umbel.jobs.read.formats.documents import BETWEEN, DocumentStyle, digest_of
from umbel.jobs.read.formats.template import Template
from umbel.jobs.read.records import InputRow, ReadOptions
from umbel.jobs.read.source import Source
from umbel.jobs.read.source_files import SourceFiles
from umbel.plan.document_order import Piece, RowDocuments
from umbel.plan.layout import LEAST_SAVED, Block, Digests, Ints, LayoutChoice, TemplateOrder, best_layout

ROWS = 200_000  # that are looked at, the first ones


@dataclass(frozen=True, slots=True)
class TemplateLines:
    """The lines of a template: those of `pinned` columns and without columns stay where they are."""

    text: str
    pinned: frozenset[str] = frozenset()

    @property
    def lines(self) -> tuple[Template, ...]:
        """Each of them as a template."""
        return tuple(Template.parse(line, constant=True) for line in self.text.split("\n"))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Lines that may change places, side by side; one that may not is a block of its own."""
        found: list[list[int]] = [[]]
        for number, line in enumerate(self.lines):
            if line.columns and not line.columns & self.pinned:
                found[-1].append(number)
            else:
                found += [[number], []]
        return tuple(tuple(block) for block in found if block)

    @property
    def may_change(self) -> bool:
        """Whether there is more than one order."""
        return any(len(block) > 1 for block in self.blocks)

    def columns(self, order: Block) -> tuple[str, ...]:
        """The columns of the lines in this order."""
        lines = self.lines
        return tuple(name for number in order for _, name in lines[number].parts if name is not None)

    def ordered(self, order: Block) -> str:
        """The template with its lines in this order."""
        lines = self.text.split("\n")
        return "\n".join(lines[number] for number in order)


@dataclass(frozen=True, slots=True)
class DocumentMeter:
    """Notes the documents of rows, which stand in line `number` of a template, between `head` and `tail`."""

    style: DocumentStyle
    number: int
    head: Template
    tail: Template
    rows: list[list[int]] = field(default_factory=list)
    pieces: list[tuple[Piece, Piece]] = field(default_factory=list)
    lengths: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, style: DocumentStyle, lines: Sequence[Template]) -> DocumentMeter | None:
        """A meter for these lines of a template; None where not one of them has documents, once."""
        parts = [
            (n, at) for n, line in enumerate(lines) for at, part in enumerate(line.parts) if part[1] == style.column
        ]
        if len(parts) != 1:
            return None
        ((number, at),) = parts
        line = lines[number].parts
        return cls(style, number, Template((*line[:at], (line[at][0], None))), Template(line[at + 1 :]))

    def note(self, row: Mapping[str, Any], texts: Sequence[str]) -> None:
        """Note the texts of a row's documents."""
        found = [digest_of(text) for text in texts]
        self.rows.append(found)
        self.lengths.update((one, len(text) + len(BETWEEN)) for one, text in zip(found, texts, strict=True))
        self.pieces.append((_piece(self.head.fill(row)), _piece(self.tail.fill(row) + "\n")))

    def table(self) -> RowDocuments:
        """The documents of all rows so far."""
        heads, tails = [head for head, _ in self.pieces], [tail for _, tail in self.pieces]
        return RowDocuments(self.number, heads, tails, self.rows, self.lengths)


@dataclass(frozen=True, slots=True)
class MeteredTemplate(Template):
    """A template that notes what each of its `lines` is for each row, and leaves prompts to others."""

    lines: tuple[Template, ...] = ()
    documents: DocumentMeter | None = None
    digests: list[list[int]] = field(default_factory=list)
    lengths: list[list[int]] = field(default_factory=list)

    def fill(self, row: Mapping[str, Any]) -> str:
        """A dash in the place of the prompt; lines with the same documents are equal, in whatever order these come.
        Raises InvalidRequest as the template does."""
        listed = None if self.documents is None else self.documents.style.texts(row)
        filled = row if listed is None or self.documents is None else self.documents.style.put(row, sorted(listed))
        texts = [line.fill(filled) for line in self.lines]
        self.digests.append([hash(pair) for pair in enumerate(texts)])
        self.lengths.append([len(text) + 1 for text in texts])  # with the end of the line
        if self.documents is not None:
            self.documents.note(filled, listed or ())
        return "-"

    def tables(self) -> tuple[Digests, Ints]:
        """Digests and lengths of the lines of all rows so far (`[rows, lines]`)."""
        shape = (len(self.digests), len(self.lines))
        digests = np.array(self.digests, np.int64).reshape(shape).view(np.uint64)
        return digests, np.array(self.lengths, np.int64).reshape(shape)


Found = tuple[TemplateLines, TemplateOrder]


def find_layout(source: Source | SourceFiles, pinned: Collection[str] = (), rule: str = "auto") -> Found | None:
    """The order of the lines of the input's template, and of the documents of rows, that shares most among its first
    200,000 rows; None where there is only one order. Raises UsageError for a pinned column that the template does not
    have."""
    template, style = source.options.template, source.options.documents
    if template is None:
        return None
    lines = TemplateLines(template, frozenset(pinned))
    whole = Template.parse(template)
    for name in sorted(lines.pinned - whole.columns):
        raise UsageError(f"--pin {name}: --prompt has no such column{nearest(name, sorted(whole.columns))}")
    documents = None if rule == "columns" or style.column in pinned else DocumentMeter.of(style, lines.lines)
    if not lines.may_change and documents is None:
        return None
    meter = MeteredTemplate(whole.parts, lines=lines.lines, documents=documents)
    for _ in islice(_rows(source, meter), ROWS):
        pass
    written = tuple((line,) for line in range(len(lines.lines)))
    blocks = written if rule == "documents" else lines.blocks
    return lines, best_layout(*meter.tables(), blocks, documents and documents.table())


def laid_out(options: ReadOptions, found: Found | None, rule: str) -> ReadOptions:
    """The options with the template and the documents in the order that was found, where the rule takes it. Raises
    UsageError where it asks for an order and there is only one."""
    if found is None:
        if rule == "off":
            return options
        raise UsageError(f"--layout {rule}: {_wanted(rule, options.documents.column)}")
    lines, layout = found
    least = {"off": 1.0, "auto": LEAST_SAVED}.get(rule, 0.0)
    choice = LayoutChoice(rule, lines.columns(layout.order), layout.saved_share > least, layout)
    if not choice.taken:
        return replace(options, layout=choice)
    documents = replace(options.documents, tree=layout.documents)
    return replace(options, template=lines.ordered(layout.order), documents=documents, layout=choice)


def _wanted(rule: str, column: str) -> str:
    lines = "--prompt needs two lines side by side with columns that are not pinned"
    documents = f"{{{column}}} once, not pinned"
    return {"columns": lines, "documents": f"--prompt needs {documents}"}.get(rule, f"{lines}, or {documents}")


def _rows(source: Source | SourceFiles, meter: MeteredTemplate) -> Iterator[InputRow]:
    for file in source.files:
        parser = file.parser()
        parser.template, parser.documents = meter, None
        yield from file.read(parser)


def _piece(text: str) -> Piece:
    return hash(text), len(text)

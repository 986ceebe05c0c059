"""Documents as a column of a row: `documents: [{"id": ..., "title": ..., "text": ...}]`, or texts alone, and what they
become in a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson

from umbel.errors import InvalidRequest
from umbel.ir.limits import refuse, shown
from umbel.jobs.read.formats.template import Template
from umbel.plan.document_order import DocumentTree

COLUMN, FORMAT, OPTION = "documents", "{text}", "--document-format"
BETWEEN = "\n\n"


@dataclass(frozen=True, slots=True)
class DocumentStyle:
    """How the documents of a row are written.

    `column`: has them, as a list, which a table may hold as JSON. `each`: what one becomes, from its fields; a text
    alone is written as it is. `tree`: puts those of a row in another order; None: as they come.
    """

    column: str = COLUMN
    each: Template = field(default_factory=lambda: Template.parse(FORMAT, OPTION))
    tree: DocumentTree | None = None

    @classmethod
    def parse(cls, column: str | None, each: str | None) -> DocumentStyle:
        """Read a format such as '{title}: {text}'. Raises UsageError for one that cannot be read, or names no field."""
        return cls(column or COLUMN, Template.parse(each or FORMAT, OPTION))

    def texts(self, row: Mapping[str, Any]) -> list[str] | None:
        """The texts of a row's documents, as they come; None where it has no list of them. Raises InvalidRequest for
        one that is no document, or lacks a field."""
        value = row.get(self.column)
        if isinstance(value, str) and value.lstrip()[:1] == "[":
            value = _decoded(value)
        return [self._text(at, one) for at, one in enumerate(value)] if isinstance(value, list) else None

    def ordered(self, row: Mapping[str, Any]) -> list[str] | None:
        """The same in the order of the tree, where there is one."""
        texts = self.texts(row)
        if texts is None or self.tree is None:
            return texts
        return [texts[at] for at in self.tree.order([digest_of(text) for text in texts])]

    def written(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row with its documents as a text, in the place of their list. Raises as `texts` does."""
        texts = self.ordered(row)
        return row if texts is None else self.put(row, texts)

    def places(self, row: Mapping[str, Any], template: Template) -> list[tuple[int, int]]:
        """Where the documents of a row stand in the prompt that a template makes of it, in characters; those without a
        text are left out. Raises as `texts` does."""
        at = next(n for n, (_, name) in enumerate(template.parts) if name == self.column)
        before = Template((*template.parts[:at], (template.parts[at][0], None)))
        found, begin = list[tuple[int, int]](), len(before.fill(row))
        for text in self.ordered(row) or ():
            found += [(begin, begin + len(text))] if text else []
            begin += len(text) + len(BETWEEN)
        return found

    def put(self, row: Mapping[str, Any], texts: Sequence[str]) -> Mapping[str, Any]:
        """The row with these texts as its documents."""
        return {**row, self.column: BETWEEN.join(texts)}

    def _text(self, at: int, document: Any) -> str:
        if isinstance(document, str):
            return document
        where = f"{self.column}[{at}]"
        if not isinstance(document, Mapping):
            refuse("invalid_value", self.column, f"{where} is {shown(document)}: a document is a text or an object")
        try:
            return self.each.fill(document)
        except InvalidRequest as error:
            refuse(error.code, self.column, f"{where}: {error.message}")


def digest_of(text: str) -> int:
    """Equal for equal texts, in every process."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _decoded(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return None

"""Prompts made from columns: `"Classify: {text}"`, with doubled braces for literal ones and no expressions."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from umbel.errors import UsageError, nearest
from umbel.ir.limits import refuse, shown


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt template.

    `parts`: (literal text, name of the column after it or None); names are looked up as they are, never evaluated.
    `option`: what gave it, for messages.
    """

    parts: tuple[tuple[str, str | None], ...]
    option: str = "--prompt"

    @classmethod
    def parse(cls, text: str, option: str = "--prompt", *, constant: bool = False) -> Template:
        """Read a template; a `constant` one may be the same for every row. Raises UsageError with the advice to double
        braces that are meant literally."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{option} {shown(text)}: not valid text ({error})") from None
        try:
            fields = list(string.Formatter().parse(text))
        except ValueError as error:
            raise UsageError(f"{option} {shown(text)}: {error}; write {{{{ and }}}} for literal braces") from None
        for _, name, spec, conversion in fields:
            if name == "" or spec or conversion:
                raise UsageError(
                    f"{option} {shown(text)}: use {{column}} alone; write {{{{ and }}}} for literal braces"
                )
        parsed = cls(tuple((literal, name) for literal, name, _, _ in fields), option)
        if not parsed.columns and not constant:
            raise UsageError(f"{option} {shown(text)}: names no column, so every row would get the same prompt")
        return parsed

    @property
    def columns(self) -> frozenset[str]:
        """The columns it reads."""
        return frozenset(name for _, name in self.parts if name is not None)

    def check_columns(self, known: Iterable[str]) -> None:
        """Raise UsageError when a column is not among `known`, naming the nearest."""
        names = list(known)
        for name in sorted(self.columns - set(names)):
            some = ", ".join([f"{known:.60}" for known in names[:20]] + ["..."] * (len(names) > 20))
            raise UsageError(f"{self.option}: no column {shown(name)}{nearest(name, names)}; the input has {some}")

    def fill(self, row: Mapping[str, Any]) -> str:
        """The prompt of one row. Raises InvalidRequest when a column is missing or null."""
        text: list[str] = []
        for literal, name in self.parts:
            text.append(literal)
            if name is not None:
                text.append(_cell(row, name, self.option))
        return "".join(text)


def _cell(row: Mapping[str, Any], name: str, option: str) -> str:
    value = row.get(name)
    if isinstance(value, str):
        return value
    if value is None:
        known = "is null" if name in row else f"is missing{nearest(name, row)}"
        refuse("missing_required_parameter", name, f"column {shown(name)}, which {option} uses, {known}")
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a whole number beyond 64 bits
        return json.dumps(value, default=str, ensure_ascii=False, separators=(",", ":"))

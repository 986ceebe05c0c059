"""What `umbel plan` prints: rows at fault and the budget first, then the plan, in a dozen lines or in full, or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from umbel.batch.prompts import prompt_texts
from umbel.jobs.read.prepare import Prepared
from umbel.jobs.read.records import InputRow, described
from umbel.plan.choice import LossyChoice
from umbel.plan.deal.fit import fits_text
from umbel.plan.explain.brief import brief_lines, folded
from umbel.plan.explain.text import WIDTH, Record, count, entries, entry, text_of

MAX_LISTED = 100  # rows at fault in JSON
MAX_SHOWN = 10  # in the full form
BRIEF_LINES = 12
_BESIDE = 16  # columns that names take


@dataclass(frozen=True, slots=True)
class PlanView:
    """A plan as an object, the input that it is of, the rows that fit a budget (as `fits_of` says; empty without one),
    the first prompts, and what was chosen by its damage, where that was asked for."""

    record: Record
    prepared: Prepared
    fits: Mapping[str, Any]
    prompts: Sequence[dict[str, Any]]
    choice: LossyChoice | None = None

    def text(self, width: int = WIDTH) -> str:
        """The whole plan as text; lines of more than `width` characters go on below."""
        faults = _fault_texts(self.prepared.faults)
        lines = [*self.head(width), *text_of(self.record, width).splitlines()]
        lines += ["rows", *(line for text in faults for line in entry("fault", text, width))] if faults else []
        lines += ["first prompts", *entries(prompt_texts(self.prompts, None), width)] if self.prompts else []
        return "\n".join(lines) + "\n"

    def brief(self, width: int = WIDTH) -> str:
        """The plan in a dozen lines, a few more where they are narrow."""
        head, body = self.head(width), brief_lines(self.record, width)
        prompts = list(entries(prompt_texts(self.prompts, width - _BESIDE), width))
        room = max(1, BRIEF_LINES - len(head) - len(body) - len(prompts) - 1)
        listed = [line for row in self.prepared.faults[:room] for line in entry("fault", described(row), width)]
        return "\n".join([*head, *body, *listed, *prompts, *entry("more", folded(self.record), width)]) + "\n"

    def as_json(self) -> str:
        """The plan as an object; `rows` counts all rows of the input, `invalid_rows` those that cannot run, `faults`
        has the first of these, `prompts` the first that can, `budget` says how many rows fit one."""
        more: dict[str, Any] = {"rows": self.prepared.rows, "invalid_rows": len(self.prepared.faults)}
        more |= {"faults": _faults_json(self.prepared.faults), "prompts": list(self.prompts)}
        more |= {"budget": self.fits} if self.fits else {}
        return json.dumps({**self.record, **more}, indent=2) + "\n"

    def head(self, width: int = WIDTH) -> list[str]:
        """Rows at fault and the budget, where there are any."""
        return head_lines(self.prepared.faults, self.prepared.rows, self.fits, width)


def head_lines(faults: Sequence[InputRow], rows: int, fits: Mapping[str, Any], width: int) -> list[str]:
    """Rows at fault, each by its line and code as far as the width allows, and the budget: a line each, if it is wide
    enough."""
    lines = [_faults(faults, rows, width)] if faults else []
    budget = wrap(f"BUDGET  {fits_text(fits)}", width, subsequent_indent=" " * 8) if fits else []
    return [*lines, *budget]


def _faults(faults: Sequence[InputRow], rows: int, width: int) -> str:
    """The number of rows that cannot run, and the first of them."""
    text, end = f"FAULTS  {len(faults):,} of {count(rows, 'row')} cannot run: ", ", ..."
    for number, row in enumerate(faults):
        code = row.error.code if row.error is not None else "error"
        item = ("" if not number else ", ") + f"{row.where} {code}"
        if number and len(text + item + end) > width:
            return text + end
        text += item
    return text


def _fault_texts(faults: Sequence[InputRow]) -> list[str]:
    """The first rows at fault with what is wrong with them."""
    more = len(faults) - MAX_SHOWN
    return [*map(described, faults[:MAX_SHOWN]), *([f"... and {more:,} more (--json lists {MAX_LISTED})"] * (more > 0))]


def _faults_json(faults: Sequence[InputRow]) -> list[dict[str, Any]]:
    found = [(row, row.error) for row in faults[:MAX_LISTED] if row.error is not None]
    files = [{} if row.file is None else {"file": row.file} for row, _ in found]
    items = [{"line": row.line, "code": error.code, "message": error.message} for row, error in found]
    return [{**file, **item} for file, item in zip(files, items, strict=True)]

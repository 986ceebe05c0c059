"""Rows whose prompts are too long and that say what then: cut, or left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from umbel.errors import InvalidRequest
from umbel.ir.params import SamplingParams
from umbel.ir.truncation import fitted, skips
from umbel.jobs.read.records import InputRow, ReadNotes

Prompt = Sequence[int] | InvalidRequest
SKIPPED = "left out, as the prompt is longer than its row accepts (truncation: skip)"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is left out, as its prompt has so many tokens that it asked for that; `n` answers were wanted."""

    row: InputRow
    n_tokens: int
    n: int


@dataclass(frozen=True, slots=True)
class Fitting:
    """Fits prompts into a context of as many tokens as `context` says for a row. A `bos` that begins a prompt stays;
    `notes` count the rows."""

    context: Callable[[SamplingParams], int]
    bos: int | None = None
    notes: ReadNotes = field(default_factory=ReadNotes)

    def fit(
        self, rows: Sequence[InputRow], prompts: Sequence[Prompt]
    ) -> tuple[list[InputRow], list[Prompt], list[Skipped]]:
        """Rows and prompts, those that are too long cut as they ask for; and the rows that are left out."""
        kept, fit, skipped = list[InputRow](), list[Prompt](), list[Skipped]()
        for row, prompt in zip(rows, prompts, strict=True):
            found, ids = row, prompt
            if row.request is not None and not isinstance(prompt, InvalidRequest):
                params = row.request.params
                if skips(prompt, params, self.context(params)):
                    skipped.append(Skipped(row._replace(request=None), len(prompt), params.n))
                    self.notes.note(SKIPPED)
                    continue
                found, ids = self._cut(row, prompt, params)
            kept.append(found)
            fit.append(ids)
        return kept, fit, skipped

    def _cut(self, row: InputRow, prompt: Sequence[int], params: SamplingParams) -> tuple[InputRow, Prompt]:
        try:
            ids = fitted(prompt, params, self.context(params), self.bos)
        except InvalidRequest as error:
            return row, error
        if len(ids) < len(prompt):
            self.notes.note(f"the prompt was cut ({params.truncation}); usage.cut_prompt_tokens says how many tokens")
        return row._replace(cut=len(prompt) - len(ids)), ids


def asks(rows: Sequence[InputRow]) -> bool:
    """Whether one of the rows says what becomes of a prompt that is too long."""
    return any(row.request is not None and row.request.params.truncation is not None for row in rows)

"""The first prompts of a job as the model reads them: text made from their ids, so that a chat template shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from umbel.ir.workload import Workload

SHOWN = 2
MAX_CHARS = 2_000  # of one prompt in print


class Spelling(Protocol):
    """The part of a tokenizer that is used here."""

    def decode(self, ids: Sequence[int]) -> str | None:
        """The text of ids, special tokens included; None where there is no tokenizer."""


def first_prompts(workload: Workload, decoder: Spelling) -> list[dict[str, Any]]:
    """The prompts of the first two rows that can run: number of the row, tokens, and the text, or the ids where there
    is no tokenizer."""
    places = {row: place for place, row in reversed(list(enumerate(workload.keys[: 64 * SHOWN].tolist())))}
    found = []
    for row, place in sorted(places.items(), key=lambda pair: pair[1])[:SHOWN]:
        ids = workload.prompt(place).tolist()
        text = decoder.decode(ids)
        content: dict[str, Any] = {"token_ids": ids} if text is None else {"text": text}
        found.append({"row": row, "tokens": len(ids), **content})
    return found


def prompt_texts(prompts: Sequence[dict[str, Any]], room: int | None) -> dict[str, str]:
    """Prompts by their names in print, what cannot be printed as escapes; each cut to `room` characters, or to as many
    as one reads."""
    shown = {}
    for number, prompt in enumerate(prompts, 1):
        text = _printable(prompt["text"]) if "text" in prompt else f"ids {' '.join(map(str, prompt['token_ids']))}"
        shown[f"prompt {number}"] = _cut(text, MAX_CHARS if room is None else room)
    return shown


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _cut(text: str, room: int) -> str:
    """A text with its beginning and its end, where both matter: a chat template writes there."""
    if len(text) <= room:
        return text
    behind = (room - 5) // 3
    return f"{text[: room - 5 - behind]} ... {text[-behind:]}"

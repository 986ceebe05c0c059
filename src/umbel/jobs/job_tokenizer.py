"""What a job needs of a tokenizer: prompts in, the bytes and texts of tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from umbel.jobs.read.prepare import TextEncoder


class JobTokenizer(TextEncoder, Protocol):
    """The part of a tokenizer that a job needs."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Texts for the user: what is not obeyed of the tokenizer's files."""

    def token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes that each id adds to a text."""

    def spell(self, ids: Sequence[int]) -> str:
        """The text of token ids; "" where there is nothing to spell them with."""

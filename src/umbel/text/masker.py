"""The seam of what follows the forms of answers: which tokens may come next, and which ones have to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from umbel.ir.structured import StructuredOutputsParams
from umbel.ir.token_masks import Masks


class Masker(Protocol):
    """Made of a vocabulary: the bytes of each token by its id, the ids of special ones, which no form takes for text,
    the ids that end a text, and what turns a text into ids. States are its own; calls for one state never overlap,
    calls for several may.

    What it allows is decided by the tokens before alone: answers do not depend on what they were computed with.
    """

    def start(self, asked: StructuredOutputsParams) -> Any:
        """A state at the beginning of an answer. Raises InvalidRequest for what cannot be followed."""
        ...

    def prepare(self, asked: Iterable[StructuredOutputsParams]) -> object:
        """Answers of these forms will be started: compile them meanwhile."""
        ...

    def advance(self, state: Any, tokens: Sequence[int]) -> str | None:
        """An answer goes on with these tokens; returns why it cannot be followed further, None where it can."""
        ...

    def forced(self, state: Any, most: int) -> list[int]:
        """The next tokens, at most so many, as far as `fill` would allow one token alone in each place; none that ends
        a text. The state has then seen them."""
        ...

    def back(self, state: Any, tokens: int) -> None:
        """The last tokens that the state has seen do not come."""
        ...

    def fill(self, states: Sequence[tuple[Any, int]], masks: Masks) -> Mapping[int, str]:
        """Set in `masks[place]`, which is zero, what may come next in each state; returns why by place, where that
        cannot be said."""
        ...

"""Tokenises words that must not be written, as vLLM does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from umbel.ir.limits import check_token_ids, refuse, shown

Encode = Callable[[Sequence[str]], Sequence[Sequence[int]]]
Runs = tuple[tuple[int, ...], ...]
MOST_KEPT = 1_024  # lists of words whose tokens are kept


class WordRuns:
    """The runs of tokens of lists of words, each list tokenised once; `encode` adds no special tokens."""

    def __init__(self, encode: Encode):
        self._encode = encode
        self._found: dict[tuple[str, ...], Runs] = {}

    def of(self, words: tuple[str, ...]) -> Runs:
        """The runs that spell a word without or with a blank in front. The second kind is left out where it has another
        number of tokens, or begins with the same one: the blank is a token of its own then. Raises InvalidRequest for a
        word without tokens."""
        if words not in self._found:
            if len(self._found) == MOST_KEPT:
                self._found.clear()
            self._found[words] = self._runs(words)
        return self._found[words]

    def check(self, words: tuple[str, ...], width: int) -> None:
        """Raise InvalidRequest for words without tokens, or with one beyond a vocabulary of so many tokens."""
        for run in self.of(words):
            check_token_ids(run, width, "bad_words")

    def _runs(self, words: tuple[str, ...]) -> Runs:
        bare = [word.lstrip() for word in words]
        plain, spaced = self._encode(bare), self._encode([f" {word}" for word in bare])
        found: dict[tuple[int, ...], None] = {}
        for word, alone, behind in zip(words, plain, spaced, strict=True):
            if not alone:
                refuse("invalid_value", "bad_words", f"bad_words entry {shown(word)}: has no tokens")
            found[tuple(alone)] = None
            if len(behind) == len(alone) and behind[0] != alone[0]:
                found[tuple(behind)] = None
        return tuple(found)

"""Log-probabilities of the tokens of an answer, by place: each is vLLM's mapping of token ids too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token's log-probability at one place. `rank` counts from 1, the most likely token; None for one that was chosen
    from behind those that were asked for. `decoded_token` is its text, None where no tokenizer was at hand."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprobs(Mapping[int, Logprob]):
    """The log-probability of one chosen token and of the most likely ones (id, logprob), best first; if not `ranked`,
    of those that were named, in their order.

    As a mapping, token ids lead to their Logprob: the chosen one first, then the others, each once. `texts` are those
    of the chosen token and of `top`, once they are known.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    texts: tuple[str, ...] = field(default=(), compare=False)
    ranked: bool = True

    def name(self, texts: Mapping[int, str]) -> None:
        """Note the texts of the tokens: by themselves nothing new, so that a record that many rows share takes them."""
        found = tuple(texts[token] for token in (self.token_id, *(one for one, _ in self.top)))
        object.__setattr__(self, "texts", found)

    def __getitem__(self, token_id: int) -> Logprob:
        ids = [one for one, _ in self.top]
        place = ids.index(token_id) + 1 if token_id in ids else None
        if place is None and token_id != self.token_id:
            raise KeyError(token_id)
        text = self.texts[0 if token_id == self.token_id else place or 0] if self.texts else None
        logprob = self.logprob if token_id == self.token_id else self.top[(place or 1) - 1][1]
        return Logprob(logprob, place if self.ranked else None, text)

    def __iter__(self) -> Iterator[int]:
        return iter(dict.fromkeys([self.token_id, *(one for one, _ in self.top)]))

    def __len__(self) -> int:
        return len({self.token_id, *(one for one, _ in self.top)})

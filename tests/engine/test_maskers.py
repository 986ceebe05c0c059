"""Another masker than llguidance's is one class: this one looks at every text of a choice, and answers come by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from umbel.api import LLM
from umbel.errors import InvalidRequest
from umbel.ir.params import SamplingParams
from umbel.ir.structured import StructuredOutputsParams
from umbel.ir.token_masks import Masks, none_but

pytest.importorskip("llguidance", reason="llguidance is not installed here, which checks forms")


@dataclass
class Written:
    """The texts that an answer may be, and its tokens so far."""

    texts: tuple[bytes, ...]
    tokens: list[int] = field(default_factory=list)


class Listed:
    """Follows choices."""

    def __init__(
        self, pieces: Sequence[bytes], special: Sequence[int], ends: Sequence[int], encode: Callable[[str], list[int]]
    ):
        self.pieces, self.ends, self.asked = pieces, tuple(ends), list[StructuredOutputsParams]()
        self.plain = [i for i, piece in enumerate(pieces) if piece and i not in set(special)]

    def start(self, asked: StructuredOutputsParams) -> Written:
        if asked.choice is None:
            raise InvalidRequest("invalid_grammar", "only choices", "structured_outputs")
        return Written(tuple(one.encode() for one in asked.choice))

    def prepare(self, asked: Iterable[StructuredOutputsParams]) -> None:
        self.asked += asked

    def advance(self, state: Written, tokens: Sequence[int]) -> str | None:
        state.tokens += tokens
        return None

    def allowed(self, state: Written) -> list[int]:
        said = b"".join(self.pieces[token] for token in state.tokens)
        rest = [text[len(said) :] for text in state.texts if text.startswith(said)]
        found = [i for i in self.plain if any(one.startswith(self.pieces[i]) for one in rest)]
        return [*found, *self.ends] if b"" in rest else found

    def forced(self, state: Written, most: int) -> list[int]:
        found = list[int]()
        while len(found) < most and len(only := self.allowed(state)) == 1 and only[0] not in self.ends:
            found += only
            state.tokens += only
        return found

    def back(self, state: Written, tokens: int) -> None:
        del state.tokens[len(state.tokens) - tokens :]

    def fill(self, states: Sequence[tuple[Written, int]], masks: Masks) -> Mapping[int, str]:
        for state, place in states:
            masks[place] = none_but(self.allowed(state), 32 * masks.shape[1])
        return {}


def test_answers_come_by_any_masker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umbel.engine.watch.grammar.Grammars", Listed)
    texts = ["yes", "yes, sure", "no", "日本", "zzyzx"]
    form = StructuredOutputsParams(choice=texts)
    params = SamplingParams(temperature=3.0, n=8, seed=1, max_tokens=40, structured_outputs=form)
    other = SamplingParams(max_tokens=4, structured_outputs=StructuredOutputsParams(regex="a"))
    with LLM("demo", dtype="float32", device="cpu", threads=1) as llm:
        good, bad = llm.generate("Say: ", params)[0], llm.generate("Say: ", other)[0]
        assert llm.stats().forced_tokens > 0
    found = {(one.text, one.finish_reason) for one in good.outputs}
    assert len(found) > 1 and found <= {(text, "stop") for text in texts}
    assert bad.error is not None and "only choices" in bad.error.message

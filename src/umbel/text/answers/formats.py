"""The formats of tool calls by vLLM's names, and answers read by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from umbel.text.answers import deepseek, hermes, listed, llama3_json, mistral
from umbel.text.answers.base import Reader, ToolCall
from umbel.text.answers.reasoning import REASONING


@dataclass(frozen=True, slots=True)
class CallFormat:
    """How a family of models writes tool calls; `special`: with special tokens, which must show in the text."""

    read: Reader
    special: bool = False


FORMATS: Mapping[str, CallFormat] = MappingProxyType(
    {
        "hermes": CallFormat(hermes.read),
        "llama3_json": CallFormat(llama3_json.read, special=True),
        "mistral": CallFormat(mistral.read, special=True),
        "deepseek_v3": CallFormat(deepseek.read, special=True),
        "deepseek_v31": CallFormat(deepseek.read, special=True),
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer in its parts: `content` is None where calls or reasoning are all there is."""

    content: str | None
    reasoning: str | None = None
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerReader:
    """How the chats of a job are read: the names of a format of `calls` and of one of `reasoning`, None for none."""

    calls: str | None = None
    reasoning: str | None = None

    def read(self, text: str, *, may_call: bool = False, must_call: bool = False) -> Answer:
        """The parts of an answer. `may_call`: its row has tools; `must_call`: a grammar holds it to calls."""
        reasoning: str | None = None
        content = text
        if self.reasoning is not None and not must_call:
            reasoning, content = REASONING[self.reasoning](text)
        if must_call or (may_call and self.calls is not None):
            reader = listed.read if must_call else FORMATS[self.calls or ""].read
            parts = reader(content)
            if parts.calls:
                return Answer(parts.content or None, reasoning, parts.calls)
        return Answer(content if content or reasoning is None else None, reasoning)


WHOLE = AnswerReader()
"""Reads no parts: an answer is its content."""

"""The formats of tool calls by vLLM's names, and answers read by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from umbel.text.answers import deepseek, fields, harmony, kimi, listed, llama3_json, mistral
from umbel.text.answers.base import NO_TYPES, CallReader, ToolCall, Types
from umbel.text.answers.pythonic import pythonic
from umbel.text.answers.reasoning import REASONING
from umbel.text.answers.tagged import tagged


@dataclass(frozen=True, slots=True)
class CallFormat:
    """How a family of models writes tool calls; `special`: with special tokens, which must show in the text."""

    read: CallReader
    special: bool = False


FORMATS: Mapping[str, CallFormat] = MappingProxyType(
    {
        "hermes": CallFormat(tagged("<tool_call>", "</tool_call>")),
        "llama3_json": CallFormat(llama3_json.read, special=True),
        "llama4_json": CallFormat(llama3_json.read, special=True),
        "mistral": CallFormat(mistral.read, special=True),
        "deepseek_v3": CallFormat(deepseek.read, special=True),
        "deepseek_v31": CallFormat(deepseek.read, special=True),
        "qwen3_coder": CallFormat(fields.qwen3_coder),
        "qwen3_xml": CallFormat(fields.qwen3_coder),
        "seed_oss": CallFormat(fields.seed_oss, special=True),
        "minimax_m2": CallFormat(fields.minimax_m2, special=True),
        "glm45": CallFormat(fields.glm45, special=True),
        "kimi_k2": CallFormat(kimi.read, special=True),
        "openai": CallFormat(harmony.read, special=True),
        "pythonic": CallFormat(pythonic()),
        "llama4_pythonic": CallFormat(pythonic("<|python_start|>", "<|python_end|>"), special=True),
        "olmo3": CallFormat(pythonic("<function_calls>", "</function_calls>", lines=True)),
        "granite": CallFormat(tagged("<|tool_call|>"), special=True),
        "granite-20b-fc": CallFormat(tagged("<function_call>")),
        "internlm": CallFormat(tagged("<|action_start|><|plugin|>", "<|action_end|>"), special=True),
        "jamba": CallFormat(tagged("<tool_calls>", "</tool_calls>"), special=True),
        "minimax": CallFormat(tagged("<tool_calls>", "</tool_calls>"), special=True),
        "hunyuan_a13b": CallFormat(tagged("<tool_calls>", "</tool_calls>")),
        "phi4_mini_json": CallFormat(tagged("functools")),
        "ernie45": CallFormat(tagged("<tool_call>", "</tool_call>"), special=True),
        "longcat": CallFormat(tagged("<longcat_tool_call>", "</longcat_tool_call>")),
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
    """How the chats of a job are read: the names of a format of `calls` and of one of `reasoning`, None for none;
    `chosen` are notes of which were found by the chat template."""

    calls: str | None = None
    reasoning: str | None = None
    chosen: tuple[str, ...] = field(default=(), compare=False)

    @property
    def shows_special(self) -> bool:
        """Whether its reasoning has special tokens, which texts of answers must show."""
        return self.reasoning is not None and REASONING[self.reasoning].special

    def read(self, text: str, *, may_call: bool = False, must_call: bool = False, types: Types = NO_TYPES) -> Answer:
        """The parts of an answer. `may_call`: its row has tools, with arguments of these `types`; `must_call`: a
        grammar holds it to calls."""
        reasoning: str | None = None
        content = text
        if self.reasoning is not None and not must_call:
            reasoning, content = REASONING[self.reasoning].split(text)
        if must_call or (may_call and self.calls is not None):
            reader = listed.read if must_call else FORMATS[self.calls or ""].read
            parts = reader(content, types)
            if parts.calls:
                return Answer(parts.content or None, reasoning, parts.calls)
        return Answer(content if content or reasoning is None else None, reasoning)


WHOLE = AnswerReader()
"""Reads no parts: an answer is its content."""

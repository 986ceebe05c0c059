"""Reasoning before the content of an answer, up to its mark: with vLLM's names of the models that write it so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from umbel.text.answers import harmony

Split = Callable[[str], tuple[str | None, str]]
"""The reasoning of an answer, None where it has none, and its content."""


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    """How a family writes reasoning; `special`: with special tokens, which must show in the text."""

    split: Split
    special: bool = False


def between(begin: str, end: str, *, begun: bool = False) -> Split:
    """Reasoning between two marks, of which a template may have written the first. Of an answer without the second one
    all is reasoning where it is `begun` so, or begins with the first, and nothing else is."""

    def split(text: str) -> tuple[str | None, str]:
        whole = text.lstrip()
        before, mark, content = whole.partition(end)
        if mark:
            return before.removeprefix(begin), content
        if begun or whole.startswith(begin):
            return whole.removeprefix(begin), ""
        return None, text

    return split


_THINK = ("<think>", "</think>")

REASONING: Mapping[str, ReasoningFormat] = MappingProxyType(
    {
        "deepseek_r1": ReasoningFormat(between(*_THINK, begun=True)),
        "qwen3": ReasoningFormat(between(*_THINK)),
        "glm45": ReasoningFormat(between(*_THINK)),
        "kimi_k2": ReasoningFormat(between(*_THINK)),
        "olmo3": ReasoningFormat(between(*_THINK, begun=True)),
        "step3": ReasoningFormat(between(*_THINK, begun=True)),
        "minimax_m2": ReasoningFormat(between(*_THINK, begun=True)),
        "granite": ReasoningFormat(between("Here is my thought process:", "Here is my response:")),
        "seed_oss": ReasoningFormat(between("<seed:think>", "</seed:think>", begun=True)),
        "mistral": ReasoningFormat(between("[THINK]", "[/THINK]"), special=True),
        "openai_gptoss": ReasoningFormat(harmony.reasoning, special=True),
    }
)

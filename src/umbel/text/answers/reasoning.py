"""Reasoning before the content of an answer, up to `</think>`: with vLLM's names of the models that write it so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

_BEGIN, _END = "<think>", "</think>"


def _split(text: str) -> tuple[str, str] | None:
    before, end, content = text.partition(_END)
    return (before.removeprefix(_BEGIN), content) if end else None


def deepseek_r1(text: str) -> tuple[str | None, str]:
    """The reasoning, which a template may have begun, and the content; an answer without its end is all reasoning."""
    return _split(text.lstrip()) or (text.lstrip().removeprefix(_BEGIN), "")


def qwen3(text: str) -> tuple[str | None, str]:
    """The same, but an answer that neither begins nor ends reasoning has none."""
    whole = text.lstrip()
    if _END in whole or whole.startswith(_BEGIN):
        return deepseek_r1(text)
    return None, text


REASONING: Mapping[str, Callable[[str], tuple[str | None, str]]] = MappingProxyType(
    {"deepseek_r1": deepseek_r1, "qwen3": qwen3}
)

"""Which formats a model's answers have, by what its chat template writes of earlier ones."""

from __future__ import annotations

import re
from collections.abc import Callable

from umbel.errors import UsageError
from umbel.text.answers.formats import AnswerReader

_CALLS = (  # the first of these that a template has; those that are parts of others come later
    ("<seed:tool_call>", "seed_oss"),
    ("<minimax:tool_call>", "minimax_m2"),
    ("<longcat_tool_call>", "longcat"),
    ("<function=", "qwen3_coder"),
    ("<arg_key>", "glm45"),
    ("<|tool_calls_section_begin|>", "kimi_k2"),
    ("<|channel|>", "openai"),
    ("[TOOL_CALLS]", "mistral"),
    ("functools[", "phi4_mini_json"),
    ("<|action_start|>", "internlm"),
    ("<|python_start|>", "llama4_pythonic"),
    ("<function_calls>", "olmo3"),
    ("<|tool_call|>", "granite"),
    ("<tool_calls>", "jamba"),
    ("<tool_call>", "hermes"),
    ("<|python_tag|>", "llama3_json"),
)
_REASONING = (
    ("<|channel|>", "openai_gptoss"),
    ("[THINK]", "mistral"),
    ("<seed:think>", "seed_oss"),
    ("Here is my thought process:", "granite"),
)
_BEGUN = re.compile(
    r"add_generation_prompt(?:(?!add_generation_prompt).)*<think>(?:\\n|\s)*['\"](?!.*<think>)", re.DOTALL
)


def call_format(template: str) -> str | None:
    """The name of the format of tool calls; None where none is known."""
    if "<｜tool▁calls▁begin｜>" in template:
        return "deepseek_v3" if "```json" in template else "deepseek_v31"
    return next((name for mark, name in _CALLS if mark in template), None)


def reasoning_format(template: str) -> str | None:
    """The name of the format of reasoning; None where a template says nothing of it. Where the template begins the
    reasoning itself, an answer without its end is all reasoning."""
    for mark, name in _REASONING:
        if mark in template:
            return name
    if "think>" not in template:
        return None
    return "deepseek_r1" if _BEGUN.search(template) else "qwen3"


def answers_of(calls: str | None, reasoning: str | None, template: Callable[[], str | None]) -> AnswerReader:
    """How answers to chats are read: by formats of these names, those that are "auto" by what `template` gives. Raises
    UsageError where that shows none."""
    chosen, found = list[str](), list[str | None]()
    for option, asked, choose in (
        ("--tool-call-parser", calls, call_format),
        ("--reasoning-parser", reasoning, reasoning_format),
    ):
        name = asked
        if asked == "auto":
            name = choose(template() or "")
            if name is None:
                raise UsageError(f"{option} auto: the model's chat template shows no format that is known; name it")
            chosen.append(f"{option} auto is {name}, as the model's chat template writes")
        found.append(name)
    return AnswerReader(*found, chosen=tuple(chosen))

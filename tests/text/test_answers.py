"""Tool calls and reasoning in recorded answers; of what is not written as its format has it, no text is lost."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.text.answers.formats import FORMATS, Answer, AnswerReader

SUN = '{"city": "Köln", "days": 2}'
CALL = f'{{"name": "sun", "arguments": {SUN}}}'
RIGHT = [
    ("hermes", f"<tool_call>\n{CALL}\n</tool_call>", None, 1),
    ("hermes", f"I look.\n<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call> Done.", "I look.\n\n Done.", 2),
    ("hermes", f"<tool_call>\n{CALL}", None, 1),
    ("hermes", '<tool_call>{"name": "sun", "arguments": "' + SUN.replace('"', '\\"') + '"}</tool_call>', None, 1),
    ("llama3_json", CALL.replace("arguments", "parameters"), None, 1),
    ("llama3_json", f"<|python_tag|>{CALL}; {CALL}", None, 2),
    ("mistral", f"[TOOL_CALLS] [{CALL}, {CALL}]", None, 2),
    ("mistral", f"Well.[TOOL_CALLS]sun{SUN}[TOOL_CALLS]sun{SUN}", "Well.", 2),
    ("mistral", f"[TOOL_CALLS]sun[ARGS]{SUN}", None, 1),
    (
        "deepseek_v3",
        f"So.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>sun\n```json\n{SUN}\n```<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>",
        "So.",
        1,
    ),
    (
        "deepseek_v31",
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>sun<｜tool▁sep｜>{SUN}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        None,
        1,
    ),
]


@pytest.mark.parametrize(("name", "text", "content", "count"), RIGHT)
def test_calls_are_found(name: str, text: str, content: str | None, count: int) -> None:
    found = AnswerReader(name).read(text, may_call=True)
    assert found.content == content
    assert [(call.name, json.loads(call.arguments)) for call in found.calls] == [("sun", json.loads(SUN))] * count
    assert AnswerReader(name).read(text) == Answer(text)
    assert AnswerReader().read(text, may_call=True) == Answer(text)


WRONG = [
    '<tool_call>{"name": "sun", "arguments": {"city": }</tool_call>',
    '<tool_call>{"name": "sun", "arguments": [1]}</tool_call>',
    '<tool_call>{"name": 3}</tool_call> and more',
    '<tool_call>["sun"]</tool_call>',
    '{"name": "sun", "parameters": {"a": 1}} and more',
    '{"name": "sun", "parameters": {"a": 1',
    '[TOOL_CALLS] [{"name": "sun"',
    '[TOOL_CALLS] [{"name": "sun", "arguments": {}}] and more',
    "[TOOL_CALLS]sun",
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>sun\n```json\n{\n```<｜tool▁call▁end｜>",
    "<|python_tag|>print(1)",
    "",
    "[" * 100_000,
]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_call_is_content(name: str, text: str) -> None:
    assert AnswerReader(name).read(text, may_call=True) == Answer(text)
    assert AnswerReader().read(text, must_call=True) == Answer(text)


def test_a_broken_call_beside_a_right_one_is_kept() -> None:
    found = AnswerReader("hermes").read(f"<tool_call>{CALL}</tool_call><tool_call>{{</tool_call>", may_call=True)
    assert len(found.calls) == 1 and found.content == "<tool_call>{</tool_call>"


PIECES = [
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "<|python_tag|>",
    CALL,
    SUN,
    "sun",
    "[",
    "]",
    "{",
    "}",
    ";",
    " x ",
]
MARKS = [
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "function",
    "\n```json\n",
    "\n```",
]


@given(st.lists(st.sampled_from([*PIECES, *MARKS, "<think>", "</think>"])).map("".join), st.sampled_from(list(FORMATS)))
def test_words_are_in_the_content_or_in_calls(text: str, name: str) -> None:
    """Whatever the pieces stand beside: each `x` is in the content, and each city in it or in a call."""
    found = AnswerReader(name).read(text, may_call=True)
    content = found.content or ""
    assert content.count("x") == text.count("x") - text.count("ex")
    said = "".join(call.arguments for call in found.calls)
    assert content.count("Köln") + said.count("Köln") == text.count("Köln")


@pytest.mark.parametrize(
    ("name", "text", "reasoning", "content"),
    [
        ("deepseek_r1", "<think>\nhm\n</think>\n\n4", "\nhm\n", "\n\n4"),
        ("deepseek_r1", "hm</think>4", "hm", "4"),
        ("deepseek_r1", "<think>hm", "hm", None),
        ("qwen3", "<think>hm</think>4", "hm", "4"),
        ("qwen3", "hm</think>4", "hm", "4"),
        ("qwen3", "<think>hm", "hm", None),
        ("qwen3", "4", None, "4"),
        (None, "<think>hm</think>4", None, "<think>hm</think>4"),
    ],
)
def test_reasoning_is_told_from_content(name: str | None, text: str, reasoning: str | None, content: str) -> None:
    found = AnswerReader(reasoning=name).read(text)
    assert (found.reasoning, found.content) == (reasoning, content)


def test_calls_stand_behind_reasoning() -> None:
    found = AnswerReader("hermes", "qwen3").read(f"<think>hm</think>\n<tool_call>{CALL}</tool_call>", may_call=True)
    assert (found.reasoning, found.content, len(found.calls)) == ("hm", None, 1)

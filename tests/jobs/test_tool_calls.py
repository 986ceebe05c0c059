"""Chats with tools: what their rows ask of the answer, and what answers become in OpenAI's lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.jobs.fakes import FakeTokenizer
from umbel.ir.request import Completion, Output
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.names import RowNames
from umbel.jobs.read.records import InputRow, ReadNotes, ReadOptions, RowHead, Style
from umbel.jobs.write.answers import Renderer
from umbel.jobs.write.openai_answers import Issuer
from umbel.text.answers.formats import WHOLE, AnswerReader

CITY = {"type": "object", "properties": {"city": {"enum": ["Bonn", "Ulm"]}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "sun", "parameters": CITY}},
    {"type": "function", "function": {"name": "rain"}},
]
NAMED = {"type": "function", "function": {"name": "sun"}}
CALL = '<tool_call>{"name": "sun", "arguments": {"city": "Bonn"}}</tool_call>'


def row_of(format: str | None = "hermes", **body: Any) -> InputRow:
    parser = RowParser(ReadOptions(answers=AnswerReader(format)), ReadNotes(), "/v1/chat/completions")
    inner = {"messages": [{"role": "user", "content": "Hi"}], **body}
    return parser.parse(0, 1, {"custom_id": "a", "method": "POST", "url": parser.endpoint, "body": inner})


@pytest.mark.parametrize(
    ("format", "body", "style"),
    [
        ("hermes", {"tools": TOOLS}, Style.TOOLS),
        ("hermes", {"tools": TOOLS, "tool_choice": "auto"}, Style.TOOLS),
        ("hermes", {"tools": TOOLS, "tool_choice": "none"}, Style.CHAT),
        ("hermes", {}, Style.CHAT),
        (None, {"tools": TOOLS}, Style.CHAT),
        (None, {"tools": TOOLS, "tool_choice": "required"}, Style.CALLS),
        ("hermes", {"tools": TOOLS, "tool_choice": NAMED}, Style.CALLS),
    ],
)
def test_rows_say_whether_their_answers_call(format: str | None, body: dict[str, Any], style: Style) -> None:
    row = row_of(format, **body)
    assert row.error is None and row.style == style and row.request is not None
    assert (row.request.params.structured_outputs is not None) == (style == Style.CALLS)


def test_special_tokens_show_where_calls_are_written_with_them() -> None:
    shown = [row_of(format, tools=TOOLS).request for format in ("mistral", "hermes")]
    shown.append(plain_row(AnswerReader(reasoning="openai_gptoss"), messages=MESSAGES).request)
    assert [one and one.params.skip_special_tokens for one in shown] == [False, True, False]


def schema_of(**body: Any) -> dict[str, Any]:
    request = row_of(tools=TOOLS, **body).request
    assert request is not None and request.params.structured_outputs is not None
    found: dict[str, Any] = json.loads(request.params.structured_outputs.json or "")
    return found


def test_what_has_to_be_called_is_held_to_its_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    valid = lambda calls, **body: jsonschema.Draft202012Validator(schema_of(**body)).is_valid(calls)  # noqa: E731
    sun, rain = {"name": "sun", "parameters": {"city": "Ulm"}}, {"name": "rain", "parameters": {}}
    assert valid([sun, rain], tool_choice="required") and not valid([], tool_choice="required")
    assert not valid([sun, rain], tool_choice="required", parallel_tool_calls=False)
    assert valid([sun], tool_choice=NAMED) and not valid([sun, sun], tool_choice=NAMED)
    assert not valid([rain], tool_choice=NAMED)
    assert not valid([{"name": "sun", "parameters": {"city": "Rome"}}], tool_choice="required")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "always"}, "invalid_value", "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "invalid_value",
            "tool_choice",
        ),
        ({"tools": TOOLS, "tool_choice": "required", "guided_regex": "a"}, "invalid_value", "tool_choice"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}],
                "tool_choice": "required",
            },
            "invalid_grammar",
            "tools",
        ),
    ],
)
def test_choices_that_cannot_be_made(body: dict[str, Any], code: str, param: str) -> None:
    error = row_of(**body).error
    assert error is not None and (error.code, error.param) == (code, param)


def plain_row(reader: AnswerReader = WHOLE, **item: Any) -> InputRow:
    return RowParser(ReadOptions(answers=reader), ReadNotes()).parse(0, 1, item)


MESSAGES = [{"role": "user", "content": "Hi"}]


def test_rows_without_messages_have_no_choice() -> None:
    for row in (
        plain_row(prompt="x", tool_choice="required"),
        plain_row(AnswerReader("hermes"), prompt="x", tool_choice=NAMED),
    ):
        assert row.error is not None and row.error.code == "unsupported_parameter"
    assert plain_row(prompt="x", tool_choice="auto").style == Style.PLAIN


@pytest.mark.parametrize(
    ("reader", "item", "style"),
    [
        (AnswerReader(), {"messages": MESSAGES, "tools": TOOLS}, Style.PLAIN),
        (AnswerReader(reasoning="qwen3"), {"messages": MESSAGES}, Style.PLAIN_CHAT),
        (AnswerReader(reasoning="qwen3"), {"prompt": "x"}, Style.PLAIN),
        (AnswerReader("hermes"), {"messages": MESSAGES, "tools": TOOLS}, Style.PLAIN_TOOLS),
        (AnswerReader("hermes"), {"messages": MESSAGES, "tools": TOOLS, "tool_choice": "none"}, Style.PLAIN_CHAT),
        (AnswerReader(), {"messages": MESSAGES, "tools": TOOLS, "tool_choice": "required"}, Style.PLAIN_CALLS),
    ],
)
def test_plain_chats_say_whether_their_answers_have_parts(
    reader: AnswerReader, item: dict[str, Any], style: Style
) -> None:
    row = plain_row(reader, **item)
    assert row.error is None and row.style == style and row.request is not None
    assert (row.request.params.structured_outputs is not None) == (style == Style.PLAIN_CALLS)


def test_plain_answers_have_parts_beside_their_text() -> None:
    reader = AnswerReader("hermes", "qwen3")
    renderer = Renderer(Issuer("job", "m", answers=reader), FakeTokenizer().token_bytes)
    output = Output(0, 3, (Completion(0, f"<think>hm</think>Look.{CALL}", (1, 2), "stop"),))
    found = [
        json.loads(renderer.answer(RowHead(0, "a", style), output, many=False).line)
        for style in (Style.PLAIN_TOOLS, Style.PLAIN_CHAT, Style.PLAIN)
    ]
    assert [one["text"] for one in found] == ["Look.", f"Look.{CALL}", f"<think>hm</think>Look.{CALL}"]
    assert [one.get("reasoning_content") for one in found] == ["hm", "hm", None]
    assert [one["finish_reason"] for one in found] == ["tool_calls", "stop", "stop"]
    assert found[0]["tool_calls"][0]["function"] == {"name": "sun", "arguments": '{"city": "Bonn"}'}
    assert found[1]["tool_calls"] == [] and "tool_calls" not in found[2]


def test_bare_arguments_are_read_by_the_row_s_own_tools() -> None:
    names, numbers = RowNames(), {"type": "object", "properties": {"zip": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": numbers}}]
    names.extend([row_of("qwen3_coder", tools=tools), row_of("qwen3_coder")])
    text = "<tool_call><function=f><parameter=zip>01</parameter></function></tool_call>"
    renderer = Renderer(Issuer("job", "m", answers=AnswerReader("qwen3_coder")), FakeTokenizer().token_bytes)
    line = renderer.answer(names.head(0, 0), Output(0, 3, (Completion(0, text, (1,), "stop"),)), many=False).line
    call = json.loads(line)["response"]["body"]["choices"][0]["message"]["tool_calls"][0]
    assert json.loads(call["function"]["arguments"]) == {"zip": "01"} and not names.head(1, 1).types


def choice_of(text: str, style: Style, reader: AnswerReader, finish: str = "stop") -> dict[str, Any]:
    renderer = Renderer(Issuer("job", "m", answers=reader), FakeTokenizer().token_bytes)
    output = Output(0, 3, (Completion(0, text, (1, 2), finish),))
    line = json.loads(renderer.answer(RowHead(0, "a", style), output, many=False).line)
    found: dict[str, Any] = line["response"]["body"]["choices"][0]
    return found


def test_calls_have_openai_s_form() -> None:
    reader = AnswerReader("hermes", "qwen3")
    choice = choice_of(f"<think>hm</think>Look.{CALL}", Style.TOOLS, reader)
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls"
    assert (message["content"], message["reasoning_content"], message["reasoning"]) == ("Look.", "hm", "hm")
    (call,) = message["tool_calls"]
    assert call["type"] == "function" and call["id"].startswith("call_")
    assert call["function"] == {"name": "sun", "arguments": '{"city": "Bonn"}'}
    assert choice_of(f"<think>hm</think>Look.{CALL}", Style.TOOLS, reader) == choice


def test_what_is_no_call_stays_content() -> None:
    reader = AnswerReader("hermes")
    for text, style, finish in (
        (CALL, Style.CHAT, "stop"),
        ("<tool_call>{", Style.TOOLS, "stop"),
        ('[{"name": "sun", "para', Style.CALLS, "length"),
    ):
        choice = choice_of(text, style, reader, finish)
        assert choice["message"] == {"role": "assistant", "content": text, "refusal": None}
        assert choice["finish_reason"] == finish


def test_an_answer_that_had_to_call_is_its_calls() -> None:
    choice = choice_of('[{"name":"sun","parameters":{"city":"Ulm"}}]', Style.CALLS, AnswerReader())
    assert choice["message"]["content"] is None and choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "sun", "arguments": '{"city": "Ulm"}'}

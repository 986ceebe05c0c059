"""What a chat template is given beside messages: as transformers gives it, or refused by name."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import write_tokenizer
from umbel.errors import InvalidRequest
from umbel.ir.chat import PLAIN_CHAT, Chat, ChatOptions, chat_options
from umbel.ir.prompts import check_messages
from umbel.text.chat_template import ChatTemplate
from umbel.text.tokenizer import Tokenizer

NOW = datetime(2024, 2, 29)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the weather is — everywhere",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string", "description": "<b>"}, "days": {"type": "integer"}},
            "required": ["town"],
        },
    },
}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Zürich?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Zürich"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "9 °C"},
    {"role": "assistant", "content": "  Nine degrees,  "},
]

# In the manner of templates that are in use: what tools, thinking and roles look like differs from model to model.
TAGS = (
    "{% if tools %}<|im_start|>system\n{% if messages[0].role == 'system' %}{{ messages[0].content }}\n{% endif %}"
    "<tools>{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n</tools><|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if not (loop.first and tools and m.role == 'system') %}"
    "<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}\n"
    "{% if m.role == 'tool' %}<tool_response>{{ m.content }}</tool_response>"
    "{% elif m.content %}{{ m.content }}{% endif %}"
    "{% for call in m.tool_calls or [] %}<tool_call>"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>{% endfor %}'
    "<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
STRIPS = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ (m.content or '') | trim }}"
    "{% for call in m.tool_calls %}{{ call.function | tojson(indent=2) }}{% endfor %}[/]{% endfor %}"
    "{% if tools is not none %}{% for tool in tools %}{{ tool.function.name }}({% for name, of in "
    "tool.function.parameters.properties.items() %}{{ name }}: {{ of.type }},{% endfor %}){% endfor %}{% endif %}"
    "{% if documents %}{% for d in documents %}<{{ d.title }}>{{ d.text }}{% endfor %}{% endif %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% elif m.content %}"
    "{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}{{ tools | length if tools }}"
    "{{ reasoning_effort | default('medium') }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
TEMPLATES = {"tags": TAGS, "strips": STRIPS, "parts": PARTS}
ASKED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "tools": {"tools": [WEATHER]},
    "thinking": {"chat_template_kwargs": {"enable_thinking": False}},
    "effort": {"reasoning_effort": "low"},
    "no opening": {"add_generation_prompt": False},
    "going on": {"continue_final_message": True, "add_generation_prompt": False},
    "going on with tools": {"continue_final_message": True, "add_generation_prompt": False, "tools": [WEATHER]},
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("name", TEMPLATES)
def test_prompts_equal_transformers(name: str, asked: str, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, TEMPLATES[name])
    expected = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tmp_path)
    given = {"add_generation_prompt": True, **ASKED[asked]}
    for messages in (TALK, TALK[:2], [*TALK[:4], {"role": "assistant", "content": [{"type": "text", "text": "So "}]}]):
        if isinstance(messages[-1]["content"], list) and name != "parts":
            continue  # transformers prints such lists as Python does
        checked = check_messages(messages)
        plain = [{key: value for key, value in message.items() if value is not None} for message in checked]
        wanted = expected.apply_chat_template(plain, tokenize=False, **_as_transformers(given))
        assert Tokenizer.load(tmp_path).render(checked, chat_options(ASKED[asked])) == wanted


def _as_transformers(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != "chat_template_kwargs"} | given.get(
        "chat_template_kwargs", {}
    )


def test_arguments_of_tool_calls_reach_the_template_as_objects() -> None:
    found = ChatTemplate("{{ messages[2].tool_calls[0].function.arguments.town }}", {}, NOW)
    assert found.render(check_messages(TALK)) == "Zürich"


@pytest.mark.parametrize("field", ["tools", "documents"])
def test_what_a_template_does_not_read_is_refused_by_name(field: str) -> None:
    options = chat_options({field: [WEATHER]})
    chats = [Chat(TALK[:2], options), Chat(TALK[:2])]
    refused, fine = ChatTemplate("{{ messages[0].content }}", {}, NOW).render_all(chats)
    assert isinstance(refused, InvalidRequest) and (refused.code, refused.param) == ("unsupported_parameter", field)
    assert fine == "Be brief."


def test_variables_that_a_template_never_reads_are_noted(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "{% if thinking is defined %}{{ thinking }}{% endif %}{{ messages[0].content }}")
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.render(TALK[:1], chat_options({"chat_template_kwargs": {"thinking": 7}})) == "7Be brief."
    assert tokenizer.notes == ()
    tokenizer.render(TALK[:1], chat_options({"chat_template_kwargs": {"enable_thinking": False}}))
    (note,) = tokenizer.notes
    assert "never reads enable_thinking" in note


def test_a_message_that_a_template_hides_cannot_be_gone_on_with() -> None:
    found = ChatTemplate("{{ messages[0].content }}", {}, NOW)
    with pytest.raises(InvalidRequest, match="does not show the last message"):
        found.render(TALK, ChatOptions(opens_answer=False, continues=True))
    with pytest.raises(InvalidRequest, match="has no text to go on with"):
        found.render([{"role": "assistant", "tool_calls": []}], ChatOptions(opens_answer=False, continues=True))


def test_rows_add_to_the_defaults_of_a_job() -> None:
    defaults = chat_options({"chat_template_kwargs": {"a": 1, "b": 1}, "tools": [WEATHER]})
    found = chat_options({"chat_template_kwargs": {"b": 2}, "tools": None}, defaults)
    assert (found.variables, found.tools) == ({"a": 1, "b": 2}, [WEATHER])
    assert chat_options({"messages": TALK}, defaults) is defaults
    assert chat_options({}) is PLAIN_CHAT
    assert chat_options({"continue_final_message": True}) == ChatOptions(opens_answer=False, continues=True)


@pytest.mark.parametrize(("given", "code", "named"), [
    ({"tools": {}}, "invalid_type", "tools"),
    ({"tools": [WEATHER] * 513}, "array_above_max_length", "512"),
    ({"tools": [{"type": "function", "function": {"name": 1}}]}, "invalid_tool", r"tools\[0\]"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": 1}}}}]},
     "invalid_tool", r"parameters\.x"),
    ({"documents": ["x"]}, "invalid_type", "documents"),
    ({"chat_template_kwargs": {"chat_template": "x"}}, "unsupported_parameter", "model's own"),
    ({"chat_template_kwargs": {"tools": []}}, "unsupported_parameter", "field of its own"),
    ({"chat_template_kwargs": [1]}, "invalid_type", "object of variables"),
    ({"add_generation_prompt": 1}, "invalid_type", "true or false"),
    ({"continue_final_message": True, "add_generation_prompt": True}, "invalid_value", "must be false"),
    ({"reasoning_effort": 7}, "invalid_type", "reasoning_effort"),
])  # fmt: skip
def test_bad_options_are_named(given: dict[str, Any], code: str, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named) as caught:
        chat_options(given)
    assert caught.value.code == code


@pytest.mark.parametrize(("calls", "named"), [
    ("x", "must be a list"),
    ([{"type": "function"}], "must have"),
    ([{"function": {"name": "f", "arguments": "{"}}], "no JSON"),
    ([{"function": {"name": "f", "arguments": "[1]"}}], "must be an object"),
])  # fmt: skip
def test_bad_tool_calls_are_named(calls: Any, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        check_messages([{"role": "assistant", "content": None, "tool_calls": calls}])

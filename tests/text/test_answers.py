"""Tool calls and reasoning in recorded answers; of what is not written as its format has it, no text is lost."""

from __future__ import annotations

import json
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.batch.job_options import ReadingOptions
from umbel.batch.reading import read_options
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.text.answers.choose import call_format, reasoning_format
from umbel.text.answers.formats import FORMATS, Answer, AnswerReader
from umbel.text.answers.reasoning import REASONING

SUN = '{"city": "Köln", "days": 2}'
CALL = f'{{"name": "sun", "arguments": {SUN}}}'
CODER = (
    "<tool_call>\n<function=sun>\n<parameter=city>\nKöln\n</parameter>\n<parameter=days>\n2\n</parameter>\n"
    "</function>\n</tool_call>"
)
GLM = (
    "<tool_call>sun\n<arg_key>city</arg_key>\n<arg_value>Köln</arg_value>\n<arg_key>days</arg_key>\n"
    "<arg_value>2</arg_value>\n</tool_call>"
)
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
    ("qwen3_coder", f"I look.\n{CODER}\n{CODER}", "I look.", 2),
    ("qwen3_xml", CODER.removesuffix("</tool_call>"), None, 1),
    ("seed_oss", CODER.replace("tool_call>", "seed:tool_call>"), None, 1),
    (
        "minimax_m2",
        '<minimax:tool_call>\n<invoke name="sun">\n<parameter name="city">Köln</parameter>\n'
        '<parameter name="days">2</parameter>\n</invoke>\n</minimax:tool_call>',
        None,
        1,
    ),
    ("glm45", f"So.\n{GLM}{GLM}", "So.", 2),
    (
        "kimi_k2",
        "So.<|tool_calls_section_begin|>"
        + "".join(
            f"<|tool_call_begin|>functions.sun:{i}<|tool_call_argument_begin|>{SUN}<|tool_call_end|>" for i in (0, 1)
        )
        + "<|tool_calls_section_end|>",
        "So.",
        2,
    ),
    (
        "openai",
        f"<|channel|>commentary to=functions.sun <|constrain|>json<|message|>{SUN}<|call|>",
        None,
        1,
    ),
    (
        "openai",
        f"<|start|>assistant to=functions.sun<|channel|>commentary json<|message|>{SUN}",
        None,
        1,
    ),
    ("pythonic", "[sun(city='Köln', days=2), sun(city=\"Köln\", days=2)]", None, 2),
    ("llama4_pythonic", "<|python_start|>[sun(city='Köln', days=2)]<|python_end|>", None, 1),
    ("olmo3", "<function_calls>\nsun(city='Köln', days=2)\nsun(city='Köln', days=2)\n</function_calls>", None, 2),
    ("granite", f"<|tool_call|>[{CALL}]", None, 1),
    ("granite-20b-fc", f"<function_call> {CALL}\n<function_call>{CALL}", None, 2),
    ("internlm", f"Look.<|action_start|><|plugin|>\n{CALL}<|action_end|>\n", "Look.", 1),
    ("jamba", f"<tool_calls>[\n{CALL},\n{CALL}\n]</tool_calls>", None, 2),
    ("minimax", f"<tool_calls>\n{CALL}\n{CALL}\n</tool_calls>", None, 2),
    ("hunyuan_a13b", f"<tool_calls>[{CALL}]</tool_calls>", None, 1),
    ("phi4_mini_json", f"functools[{CALL}]", None, 1),
    ("ernie45", f"<tool_call>\n{CALL}\n</tool_call>", None, 1),
    ("longcat", f"<longcat_tool_call>{CALL}</longcat_tool_call>", None, 1),
    ("llama4_json", CALL.replace("arguments", "parameters"), None, 1),
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
    "<tool_call>\n<function=sun>\n<parameter=city>Ulm\n</function>\n</tool_call>",
    "<tool_call><function=sun>and<parameter=a>1</parameter></function></tool_call>",
    "<tool_call>sun\n<arg_key>city</arg_key>\nUlm</tool_call>",
    "<|tool_call_begin|>sun<|tool_call_argument_begin|>{}<|tool_call_end|>",
    "<|tool_call_begin|>functions.sun:0<|tool_call_argument_begin|>{<|tool_call_end|>",
    "<|channel|>commentary to=functions.sun<|message|>{",
    "<|channel|>final<|message|>Hi",
    "[sun('Ulm')]",
    "[sun(city=open('x'))]",
    "[sun(city=1), 2]",
    "[sun(**{'a': 1})]",
    "[sun(city=f'{1}')]",
    "<function_calls>\nsun(city=\n</function_calls>",
    "<tool_calls>[{}]</tool_calls>",
    "functools[]",
    "[" * 300 + "]" * 300,
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
    "<function=sun>",
    "<parameter=city>",
    "</parameter>",
    "</function>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "<|channel|>",
    "commentary to=functions.sun",
    "<|message|>",
    "<|start|>",
    "<|tool_call_begin|>functions.sun:0",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "[sun(city='Köln')]",
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
        ("granite", "Here is my thought process: hm Here is my response: 4", " hm ", " 4"),
        ("granite", "4", None, "4"),
        ("seed_oss", "<seed:think>hm</seed:think>4", "hm", "4"),
        ("mistral", "[THINK]hm[/THINK]4", "hm", "4"),
        ("glm45", "\n<think>hm</think>\n4", "hm", "\n4"),
        ("minimax_m2", "hm", "hm", None),
        (
            "openai_gptoss",
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>",
            "hm",
            "4",
        ),
        ("openai_gptoss", "<|channel|>analysis<|message|>hm", "hm", None),
        ("openai_gptoss", "<|channel|>final<|message|>4", None, "4"),
        ("openai_gptoss", "4", None, "4"),
        (None, "<think>hm</think>4", None, "<think>hm</think>4"),
    ],
)
def test_reasoning_is_told_from_content(name: str | None, text: str, reasoning: str | None, content: str) -> None:
    found = AnswerReader(reasoning=name).read(text)
    assert (found.reasoning, found.content) == (reasoning, content)


def test_calls_stand_behind_reasoning() -> None:
    found = AnswerReader("hermes", "qwen3").read(f"<think>hm</think>\n<tool_call>{CALL}</tool_call>", may_call=True)
    assert (found.reasoning, found.content, len(found.calls)) == ("hm", None, 1)


def test_gpt_oss_thinks_and_calls() -> None:
    text = (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary<|message|>Let me look.<|end|>"
        f"<|start|>assistant<|channel|>commentary to=functions.sun <|constrain|>json<|message|>{SUN}<|call|>"
    )
    found = AnswerReader("openai", "openai_gptoss").read(text, may_call=True)
    assert (found.reasoning, found.content, [call.name for call in found.calls]) == ("hm", "Let me look.", ["sun"])


TYPED = {"f": {"zip": {"type": "string"}, "n": {"type": "integer"}, "on": {"type": "boolean"}, "any": {}}}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("zip", "01234", "01234"),
        ("zip", "123", "123"),
        ("zip", "\n  two\nlines\n", "  two\nlines"),
        ("zip", "null", "null"),
        ("n", "3", 3),
        ("n", "three", "three"),
        ("on", "true", True),
        ("on", "False", False),
        ("any", "[1, 2]", [1, 2]),
        ("any", "plain", "plain"),
        ("other", "3", 3),
    ],
)
def test_bare_texts_are_what_the_tool_says(key: str, text: str, value: object) -> None:
    answer = f"<tool_call><function=f><parameter={key}>{text}</parameter></function></tool_call>"
    (call,) = AnswerReader("qwen3_coder").read(answer, may_call=True, types=TYPED).calls
    assert json.loads(call.arguments) == {key: value}


QWEN3 = (
    "{%- if m.tool_calls %}<tool_call>{{ m.tool_calls }}</tool_call>{% endif %}"
    "{%- set c = content.split('</think>')[-1] %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if not enable_thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)
R1 = (
    "{{'<｜tool▁calls▁begin｜>'}}```json {{content.split('</think>')}}"
    "{% if add_generation_prompt %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "calls", "reasoning"),
    [
        (QWEN3, "hermes", "qwen3"),
        (R1, "deepseek_v3", "deepseek_r1"),
        ("<|start|>assistant<|channel|>analysis<|message|>", "openai", "openai_gptoss"),
        ("<tool_call>\\n<function={{ name }}>\\n<parameter={{ key }}>", "qwen3_coder", None),
        ("[TOOL_CALLS][THINK]", "mistral", "mistral"),
        ("{{ messages }}", None, None),
    ],
)
def test_a_template_shows_how_its_model_answers(template: str, calls: str | None, reasoning: str | None) -> None:
    assert (call_format(template), reasoning_format(template)) == (calls, reasoning)


def test_options_have_the_names_of_all_formats() -> None:
    hints = get_type_hints(ReadingOptions, include_extras=True)
    for name, known in (("tool_call_parser", FORMATS), ("reasoning_parser", REASONING)):
        (literal, _) = get_args(get_args(hints[name])[0])
        assert get_args(literal) == ("auto", *known)


def test_auto_is_what_the_template_shows_or_refused() -> None:
    asked = ReadingOptions(tool_call_parser="auto", reasoning_parser="auto")
    found = read_options(SamplingParams(), asked, None, None, lambda: QWEN3).answers
    assert (found.calls, found.reasoning) == (
        "hermes",
        "qwen3",
    ) and "--tool-call-parser auto is hermes" in found.chosen[0]
    with pytest.raises(UsageError, match="--tool-call-parser auto"):
        read_options(SamplingParams(), asked, None, None, lambda: None)

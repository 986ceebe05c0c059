"""Forms of answers: every name for one, and what is refused, with its reason, before anything runs."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from umbel.errors import InvalidRequest
from umbel.ir.body import CHAT, COMPLETION, PLAIN, Dialect, params_from_body
from umbel.ir.params import SamplingParams
from umbel.ir.structured import MAX_CHARS, StructuredOutputsParams

pytest.importorskip("llguidance", reason="llguidance is not installed here")

SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}}
TAG = {"structures": [{"begin": "<f>", "schema": SCHEMA, "end": "</f>"}], "triggers": ["<f"]}
BY_NAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"structured_outputs": {"json": SCHEMA}}, {"json": SCHEMA}),
    ({"structured_outputs": {"json": json.dumps(SCHEMA), "regex": None}}, {"json": SCHEMA}),
    ({"structured_outputs": json.dumps({"regex": "[0-9]+"})}, {"regex": "[0-9]+"}),
    ({"structured_outputs": {"choice": ["a", "b"], "json_object": False}}, {"choice": ["a", "b"]}),
    ({"structured_outputs": {"grammar": 'start: "a"'}}, {"grammar": 'start: "a"'}),
    ({"structured_outputs": {"grammar": 'root ::= "a"'}}, {"grammar": 'root ::= "a"'}),
    ({"structured_outputs": {"json_object": True}}, {"json_object": True}),
    (
        {"structured_outputs": {"json": SCHEMA, "disable_any_whitespace": True, "disable_fallback": False}},
        {"json": SCHEMA, "disable_any_whitespace": True},
    ),
    ({"response_format": {"type": "json_object"}}, {"json_object": True}),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}},
        {"json": SCHEMA},
    ),
    ({"response_format": {"type": "structural_tag", **TAG}}, {"structural_tag": {"type": "structural_tag", **TAG}}),
    ({"guided_json": SCHEMA}, {"json": SCHEMA}),
    ({"guided_regex": "a+"}, {"regex": "a+"}),
    ({"guided_choice": ["x"]}, {"choice": ["x"]}),
    ({"guided_grammar": 'start: "a"'}, {"grammar": 'start: "a"'}),
    ({"structural_tag": TAG}, {"structural_tag": TAG}),
]


@pytest.mark.parametrize("dialect", [PLAIN, CHAT, COMPLETION], ids=lambda d: d.name)
@pytest.mark.parametrize(("body", "wanted"), BY_NAME)
def test_every_name_asks_for_the_same(body: dict[str, Any], wanted: dict[str, Any], dialect: Dialect) -> None:
    found = params_from_body(body, dialect, SamplingParams()).structured_outputs
    assert found == StructuredOutputsParams(**wanted)
    assert found is not None and hash(found) == hash(StructuredOutputsParams(**wanted))


def test_properties_keep_their_order() -> None:
    asked = StructuredOutputsParams(json=SCHEMA)  # type: ignore[arg-type]
    assert asked.json is not None and asked.json.index('"b"') < asked.json.index('"a"')


def test_what_asks_for_nothing_and_what_takes_a_default_back() -> None:
    for body in ({"structured_outputs": {}}, {"response_format": {"type": "text"}}, {"guided_json": None}):
        assert params_from_body(body, CHAT, SamplingParams()).structured_outputs is None
    default = SamplingParams(structured_outputs=StructuredOutputsParams(regex="a"))
    assert params_from_body({}, CHAT, default) == default
    assert params_from_body({"response_format": None}, CHAT, default) == default
    assert params_from_body({"response_format": {"type": "text"}}, CHAT, default).structured_outputs is None


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"structured_outputs": {"json": {"not": {}}}}, "invalid_grammar", "Unimplemented keys"),
    ({"structured_outputs": {"json": {"x-guidance": {"lenient": True}, "not": {}}}}, "invalid_grammar", "Unimplem"),
    ({"structured_outputs": {"json": {"type": "string", "format": "zzz"}}}, "invalid_grammar", "Unknown format: zzz"),
    ({"structured_outputs": {"json": {"$ref": "http://example.com/x"}}}, "invalid_grammar", "http://example.com/x"),
    ({"structured_outputs": {"json": True}}, "invalid_type", "must be an object"),
    ({"structured_outputs": {"json": "{"}}, "invalid_value", "no JSON"),
    ({"structured_outputs": {"regex": "(a|b"}}, "invalid_grammar", "unclosed group"),
    ({"structured_outputs": {"regex": r"(a)\1"}}, "invalid_grammar", "backreferences"),
    ({"structured_outputs": {"regex": ""}}, "invalid_value", "empty"),
    ({"structured_outputs": {"choice": []}}, "invalid_value", "texts"),
    ({"structured_outputs": {"choice": "yes"}}, "invalid_type", "list"),
    ({"structured_outputs": {"choice": ["a", ""]}}, "invalid_value", "empty"),
    ({"structured_outputs": {"grammar": "start: nothing"}}, "invalid_grammar", "nothing"),
    ({"structured_outputs": {"structural_tag": {"structures": []}}}, "invalid_grammar", "structures"),
    ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "invalid_value", "regex, choice"),
    ({"structured_outputs": {"regexp": "a"}}, "unknown_parameter", "regexp"),
    ({"structured_outputs": {"json": {}, "disable_additional_properties": True}}, "unsupported_parameter", "leave"),
    ({"structured_outputs": {"json": {}}, "guided_regex": "a"}, "invalid_value", "both"),
    ({"structured_outputs": 7}, "invalid_type", "object"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, "invalid_type", "json_schema"),
    ({"response_format": {"type": "xml"}}, "invalid_value", "json_schema"),
    ({"guided_choice": ["x"], "ignore_eos": True}, "invalid_value", "end token"),
]


@pytest.mark.parametrize(("body", "code", "said"), REFUSED)
def test_what_cannot_be_held_is_refused_with_its_reason(body: dict[str, Any], code: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        params_from_body(body, PLAIN, SamplingParams())
    assert caught.value.code == code and said in caught.value.message and len(caught.value.message) < 500


def chained(n: int, inner: Any) -> dict[str, Any]:
    """A schema of which each definition is reached by way of all before it."""
    steps = {f"a{i}": {"type": "array", "items": {"$ref": f"#/$defs/a{i + 1}"}} for i in range(n)}
    return {"$ref": "#/$defs/a0", "$defs": {**steps, f"a{n}": inner}}


def lark(n: int, word: str) -> str:
    """A grammar whose rules, or words, are each a part of the one before."""
    return "\n".join(["start: " + word + "0", *(f"{word}{i}: {word}{i + 1}" for i in range(n)), f'{word}{n}: "a"'])


@pytest.mark.parametrize(
    "asked",
    [
        {"json": {"enum": [f"{i} is {i * 7919 % 1_000_003}" for i in range(100_000)]}},
        {"json": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(20_000)}}},
        {"json": json.dumps({"properties": {"a": {}}}).replace("{}", '{"items":' * 5_000 + "{}" + "}" * 5_000)},
        {
            "json": {
                "allOf": [{"anyOf": [{"properties": {f"a{i}": {"const": j}}} for j in range(3)]} for i in range(12)]
            }
        },
        {"json": chained(11_000, {"not": {}})},
        {"regex": "a" * (MAX_CHARS + 1)},
        {"regex": "(" * 5_000 + "a" + ")" * 5_000},
        {"grammar": "start: " + "(" * 10_000 + '"a"' + ")" * 10_000},
        {"grammar": "root ::= " + "(" * 10_000 + '"a"' + ")" * 10_000},
        {"grammar": lark(5_000, "r")},
        {"grammar": lark(5_000, "T")},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_bombs_end_by_a_limit(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        StructuredOutputsParams(**asked)
    assert len(caught.value.message) < 500 and "backtrace" not in caught.value.message


def test_definitions_may_lie_behind_one_another() -> None:
    """As deep as this, a compiler that goes down into them needs more than a thread's usual memory."""
    StructuredOutputsParams(json=chained(2_000, {"type": "null"}))  # type: ignore[arg-type]


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(InvalidRequest, match=r"pip install 'umbel\[grammar\]'"):
        StructuredOutputsParams(regex="a")

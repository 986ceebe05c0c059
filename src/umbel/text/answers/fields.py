"""Calls whose arguments stand between marks of their own, their values as bare text: Qwen3-Coder, Seed-OSS, MiniMax-M2,
GLM-4.5. What a value is says the tool's schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from umbel.text.answers.base import NO_TYPES, CallReader, Parts, ToolCall, Types, outside, whole_json


def fields(section: str, call: str, field: str) -> CallReader:
    """Reads calls by expressions: a `section` whose group is what it holds, a `call` in it with `name` and `inner`, and
    each `field` of a call with `key` and `value`, between which only blanks may stand."""
    outer, one_call, one_field = (re.compile(pattern, re.DOTALL) for pattern in (section, call, field))

    def read(text: str, types: Types = NO_TYPES) -> Parts:
        spans, calls = list[tuple[int, int]](), list[ToolCall]()
        for part in outer.finditer(text):
            found = [_call(one, one_field, types) for one in one_call.finditer(part[1])]
            if found and None not in found and not one_call.sub("", part[1]).strip():
                spans.append(part.span())
                calls += [one for one in found if one is not None]
        return Parts(outside(text, spans), tuple(calls)) if calls else Parts(text)

    return read


def _call(found: re.Match[str], field: re.Pattern[str], types: Types) -> ToolCall | None:
    """A call with its arguments; None where something else stands among them."""
    name = found["name"].strip()
    if not name or field.sub("", found["inner"]).strip():
        return None
    schemas = types.get(name, {})
    each = ((one["key"].strip(), one["value"]) for one in field.finditer(found["inner"]))
    given = {key: value_of(value, schemas.get(key)) for key, value in each}
    return ToolCall(name, json.dumps(given, ensure_ascii=False))


def value_of(text: str, schema: Any) -> Any:
    """The value that a bare text is by the schema of its argument: a text where it may be one and no other fits, else
    JSON; without a schema JSON where it is some. Line breaks around it belong to the marks."""
    text = text.removeprefix("\n").removesuffix("\n")
    kinds = _kinds(schema)
    value = whole_json(text.strip())
    if value is None and text.strip() == "null" and kinds != {"string"}:
        return None
    if value is None or kinds == {"string"}:
        return {"True": True, "False": False}.get(text.strip(), text) if "boolean" in kinds else text
    if "string" in kinds and not kinds & _kinds_of(value):
        return text
    return value


def _kinds(schema: Any) -> set[str]:
    """The types that a schema names, those of its branches too; empty where it leaves them open."""
    if not isinstance(schema, Mapping):
        return set()
    kind = schema.get("type")
    found = {kind} if isinstance(kind, str) else set(filter(lambda one: isinstance(one, str), kind or ()))
    for name in ("anyOf", "oneOf"):
        for one in schema.get(name) or ():
            found |= _kinds(one)
    if not found and isinstance(schema.get("enum"), list):
        found = {kind for one in schema["enum"] for kind in _kinds_of(one)}
    return found


def _kinds_of(value: Any) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int):
        return {"integer", "number"}
    names: Mapping[type, str] = {float: "number", str: "string", list: "array", dict: "object", type(None): "null"}
    return {names[type(value)]}


qwen3_coder = fields(
    r"<tool_call>(.*?)(?:</tool_call>|\Z)",
    r"<function=(?P<name>[^>\n]+)>(?P<inner>.*?)</function>",
    r"<parameter=(?P<key>[^>\n]+)>(?P<value>.*?)</parameter>",
)
seed_oss = fields(
    r"<seed:tool_call>(.*?)(?:</seed:tool_call>|\Z)",
    r"<function=(?P<name>[^>\n]+)>(?P<inner>.*?)</function>",
    r"<parameter=(?P<key>[^>\n]+)>(?P<value>.*?)</parameter>",
)
minimax_m2 = fields(
    r"<minimax:tool_call>(.*?)(?:</minimax:tool_call>|\Z)",
    r'<invoke name="(?P<name>[^"\n]+)">(?P<inner>.*?)</invoke>',
    r'<parameter name="(?P<key>[^"\n]+)">(?P<value>.*?)</parameter>',
)
glm45 = fields(
    r"<tool_call>((?:(?!<tool_call>).)*?)</tool_call>",
    r"\s*(?P<name>[\w.-]+)(?P<inner>.*)",
    r"<arg_key>(?P<key>.*?)</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>",
)

"""Chats: messages, and what their template is given beside them, with vLLM's names, checked once for every way in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from umbel.ir.limits import check_bool, refuse, shown

Message = dict[str, Any]

CHAT_FIELDS = frozenset(
    (
        *("tools", "documents", "chat_template_kwargs", "reasoning_effort"),
        *("add_generation_prompt", "continue_final_message"),
    )
)
_FLAGS = ("add_generation_prompt", "continue_final_message")
MAX_TOOLS = 512
MAX_SCHEMA_DEPTH = 64
_KEYWORDS: Mapping[str, type | tuple[type, ...]] = {
    "type": (str, list),
    "properties": dict,
    "required": list,
    "enum": list,
    "pattern": str,
    "description": str,
}
_OWN_NAMES = CHAT_FIELDS | {"messages", "chat_template", "tokenize"}
"""Names that chat_template_kwargs must not have: those of other fields, and arguments of the renderer itself."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """What a chat template sees beside the messages.

    `tools`, `documents`: as the model may use them; None where there are none. `variables`: the others by name, such as
    `enable_thinking`. `opens_answer`: the prompt ends where the assistant's answer begins; else behind the messages, or
    within the last one where `continues` asks for that: the model goes on with it.
    """

    tools: Sequence[Mapping[str, Any]] | None = None
    documents: Sequence[Mapping[str, Any]] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    opens_answer: bool = True
    continues: bool = False


PLAIN_CHAT = ChatOptions()


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, and how it becomes a prompt."""

    messages: Sequence[Message]
    options: ChatOptions = PLAIN_CHAT


def chat_options(body: Mapping[str, Any], defaults: ChatOptions = PLAIN_CHAT) -> ChatOptions:
    """The options that a row or a call gives, else the defaults; null means the default, and variables are added to the
    defaults' own. Raises InvalidRequest."""
    given = {name: body[name] for name in CHAT_FIELDS & body.keys() if body[name] is not None}
    if not given:
        return defaults
    variables = dict(defaults.variables) | template_variables(given.get("chat_template_kwargs", {}))
    if "reasoning_effort" in given:
        variables["reasoning_effort"] = _effort(given["reasoning_effort"])
    opens, continues = _ending(given, defaults)
    found = replace(defaults, variables=variables, opens_answer=opens, continues=continues)
    if "tools" in given:
        found = replace(found, tools=check_tools(given["tools"]) or None)
    if "documents" in given:
        found = replace(found, documents=_documents(given["documents"]) or None)
    return found


def template_variables(given: Any, name: str = "chat_template_kwargs") -> dict[str, Any]:
    """Check variables for chat templates, by name. Raises InvalidRequest."""
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        refuse("invalid_type", name, f"{name}={shown(given)}: must be an object of variables by name")
    for key in given:
        if key in _OWN_NAMES:
            why = "the template is the model's own" if key == "chat_template" else "give it as a field of its own"
            refuse("unsupported_parameter", name, f"{name}: {key!r} cannot be set here: {why}")
    return dict(given)


def check_tools(tools: Any) -> list[dict[str, Any]]:
    """Check the tools that a model may call: functions in OpenAI's form. Raises InvalidRequest."""
    if not isinstance(tools, list):
        refuse("invalid_type", "tools", f"tools={shown(tools)}: must be a list of tools")
    if len(tools) > MAX_TOOLS:
        refuse("array_above_max_length", "tools", f"tools: {len(tools)} of them; at most {MAX_TOOLS} are accepted")
    for i, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            where = f"tools[{i}]"
            refuse("invalid_tool", where, f'{where}: must be {{"type": "function", "function": {{"name": ...}}}}')
        _check_schema(f"tools[{i}].function.parameters", function.get("parameters") or {})
    return tools


def _check_schema(where: str, schema: Any, depth: int = 0) -> None:
    """Refuse what is no JSON schema by the types of its commonest keywords."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict) or depth > MAX_SCHEMA_DEPTH:
        refuse("invalid_tool", where, f"{where}={shown(schema)}: must be a JSON schema")
    for key, kind in _KEYWORDS.items():
        if key in schema and not isinstance(schema[key], kind):
            refuse("invalid_tool", where, f"{where}.{key}={shown(schema[key])}: a JSON schema has another type there")
    for name, inner in (schema.get("properties") or {}).items():
        _check_schema(f"{where}.{name}", inner, depth + 1)
    if "items" in schema:
        _check_schema(f"{where}.items", schema["items"], depth + 1)


def check_tool_calls(where: str, calls: Any) -> list[dict[str, Any]]:
    """The tool calls of a message, their arguments as objects, as templates expect them; OpenAI has them as JSON in a
    text. Raises InvalidRequest."""
    if not isinstance(calls, list):
        refuse("invalid_type", where, f"{where}={shown(calls)}: must be a list of tool calls")
    return [_tool_call(f"{where}[{i}]", call) for i, call in enumerate(calls)]


def _tool_call(where: str, call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        refuse("invalid_value", where, f'{where}: must have {{"function": {{"name": ..., "arguments": ...}}}}')
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            refuse("invalid_value", f"{where}.function.arguments", f"{where}: arguments are no JSON ({error})")
    if not isinstance(arguments, dict):
        refuse("invalid_type", f"{where}.function.arguments", f"{where}: arguments must be an object")
    return {**call, "function": {**function, "arguments": arguments}}


def _effort(effort: Any) -> str:
    if not isinstance(effort, str):
        refuse("invalid_type", "reasoning_effort", f"reasoning_effort={shown(effort)}: must be a text such as 'low'")
    return effort


def _documents(documents: Any) -> list[Any]:
    if not isinstance(documents, list) or not all(isinstance(one, dict) for one in documents):
        refuse("invalid_type", "documents", f"documents={shown(documents)}: must be a list of objects")
    return documents


def _ending(given: Mapping[str, Any], defaults: ChatOptions) -> tuple[bool, bool]:
    """How the prompt ends: whether it opens an answer, and whether it goes on with the last message, which leaves no
    place for another's beginning."""
    flags = {name: check_bool(name, given[name]) for name in _FLAGS if name in given}
    continues = flags.get("continue_final_message", defaults.continues)
    opens = flags.get("add_generation_prompt", defaults.opens_answer and not continues)
    if continues and opens:
        refuse(
            "invalid_value",
            "continue_final_message",
            "continue_final_message=true goes on with the last message: add_generation_prompt must be false",
        )
    return opens, continues

"""Bodies of `/v1/responses` as chats, and answers to chats as response objects: text, reasoning and calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from umbel.engine.request_output import RequestOutput
from umbel.ir.limits import check_int, refuse, shown

_OWN = frozenset(
    (
        *("input", "instructions", "max_output_tokens", "text", "reasoning", "tools", "tool_choice", "truncation"),
        *("store", "include", "stream", "stream_options", "background", "previous_response_id", "conversation"),
        *("prompt", "max_tool_calls", "top_logprobs", "moderation", "context_management"),
    )
)
_NEEDS_STORE = ("previous_response_id", "conversation", "prompt")
_TEXT_PARTS = ("input_text", "output_text", "text")


def chat_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a chat that asks for the same. Raises InvalidRequest."""
    for name in _NEEDS_STORE:
        if body.get(name) is not None:
            refuse("unsupported_parameter", name, f"{name}: no responses are kept here; send the conversation in input")
    if body.get("background"):
        refuse("unsupported_parameter", "background", "background: answers are not kept; use /v1/batches")
    if body.get("truncation") not in (None, "disabled"):
        refuse("unsupported_parameter", "truncation", f"truncation={shown(body['truncation'])}: must be 'disabled'")
    if body.get("n") not in (None, 1):
        refuse("unsupported_parameter", "n", f"n={shown(body['n'])}: a response has one answer")
    found = {name: value for name, value in body.items() if name not in _OWN}
    found["messages"] = _messages(body)
    if (limit := body.get("max_output_tokens")) is not None:
        found["max_tokens"] = check_int("max_output_tokens", limit, 1, 2**31 - 1)
    if (tools := body.get("tools")) is not None:
        found["tools"] = [_tool(tool) for tool in _listed("tools", tools)]
    if (choice := body.get("tool_choice")) is not None:
        found["tool_choice"] = _choice(choice)
    return found | _form(body.get("text")) | _effort(body.get("reasoning"))


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    given, first = body.get("input"), body.get("instructions")
    if given is None:
        refuse("missing_required_parameter", "input", "input is missing")
    if first is not None and not isinstance(first, str):
        refuse("invalid_type", "instructions", f"instructions={shown(first)}: must be a text")
    messages: list[dict[str, Any]] = [] if first is None else [{"role": "system", "content": first}]
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    for item in _listed("input", given):
        _append(messages, item)
    return messages


def _append(messages: list[dict[str, Any]], item: Any) -> None:
    """Add an item of the input to a conversation; calls go to the message of the assistant before them."""
    kind = item.get("type", "message") if isinstance(item, dict) else None
    if kind == "message":
        messages.append({"role": item.get("role"), "content": _content(item.get("content"))})
    elif kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": ""})
        messages[-1].setdefault("tool_calls", []).append(call)
    elif kind == "function_call_output":
        content = _content(item.get("output"))
        messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
    elif kind != "reasoning":  # which templates leave out of earlier turns
        refuse(
            "unsupported_content", "input", f"input has an item {shown(item)}: messages and calls of functions are read"
        )


def _content(content: Any) -> Any:
    """A content with the parts of chats."""
    if not isinstance(content, list):
        return content
    parts = [part if isinstance(part, dict) else {} for part in content]
    return [{"type": "text", "text": p.get("text")} if p.get("type") in _TEXT_PARTS else p for p in parts]


def _listed(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        refuse("invalid_type", name, f"{name}={shown(value)}: must be a list")
    return value


def _tool(tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        refuse("invalid_tool", "tools", f"tools has {shown(tool)}: only functions can be called")
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _choice(choice: Any) -> Any:
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return choice


def _form(text: Any) -> dict[str, Any]:
    """What `text.format` asks for, as a `response_format`."""
    form = text.get("format") if isinstance(text, dict) else None
    if not isinstance(form, dict) or form.get("type") == "text":
        return {}
    if form.get("type") != "json_schema":
        return {"response_format": form}
    return {"response_format": {"type": "json_schema", "json_schema": {k: v for k, v in form.items() if k != "type"}}}


def _effort(reasoning: Any) -> dict[str, Any]:
    effort = reasoning.get("effort") if isinstance(reasoning, dict) else None
    return {} if effort is None else {"reasoning_effort": effort}


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What a response object has beside its output: its `tag`, which its ids are made of, and what was asked."""

    tag: str
    created: int
    model: str
    asked: Mapping[str, Any] = field(default_factory=dict)

    def body(self, status: str, output: Sequence[Any] = (), result: RequestOutput | None = None) -> dict[str, Any]:
        """The response object, with the usage of its `result` where that is there."""
        asked = self.asked
        return {
            "id": f"resp_{self.tag}",
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "model": self.model,
            "output": list(output),
            "parallel_tool_calls": asked.get("parallel_tool_calls") is not False,
            "previous_response_id": None,
            "temperature": asked.get("temperature"),
            "top_p": asked.get("top_p"),
            "text": asked.get("text") or {"format": {"type": "text"}},
            "tool_choice": asked.get("tool_choice") or "auto",
            "tools": asked.get("tools") or [],
            "truncation": "disabled",
            "usage": None if result is None else usage_of(result),
            "metadata": asked.get("metadata") or {},
        }

    def item(self, kind: str, text: str = "", status: str = "completed") -> dict[str, Any]:
        """The part of the output that is a message, or reasoning."""
        if kind == "message":
            content = [text_part(kind, text)] if status == "completed" else []
            return {"id": f"msg_{self.tag}", "type": kind, "status": status, "role": "assistant", "content": content}
        content = [text_part(kind, text)] if status == "completed" else []
        return {"id": f"rs_{self.tag}", "type": kind, "status": status, "summary": [], "content": content}


def text_part(kind: str, text: str) -> dict[str, Any]:
    """The part of a message, or of reasoning, that holds its text."""
    if kind == "message":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "reasoning_text", "text": text}


def call_item(call: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the output that is a call, from one in the form of chats."""
    named = {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}
    return {"id": f"fc_{call['id']}", "type": "function_call", "status": "completed", "call_id": call["id"], **named}


def usage_of(output: RequestOutput) -> dict[str, Any]:
    """The tokens of a response."""
    taken, given = len(output.prompt_token_ids), sum(len(one.token_ids) for one in output.outputs)
    return {
        "input_tokens": taken,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": given,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": taken + given,
    }

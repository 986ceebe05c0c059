"""Checks on what a row asks the model to read: text, token ids or chat messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.ir.chat import Message, check_tool_calls
from umbel.ir.limits import MAX_INT, check_prompt_ids, check_token_ids, refuse, shown

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_MEDIA = frozenset({"image_url", "image", "input_image", "audio_url", "input_audio", "video_url", "video", "file"})


def missing_prompt(item: Mapping[str, Any]) -> str:
    """What to tell of a row that has nothing to answer."""
    if "body" in item:
        return "no prompt and no messages: an OpenAI batch line in a file whose first row is a plain one"
    return "no prompt and no messages; name columns with --prompt 'text with {column}' to build prompts from them"


def check_prompt(prompt: Any, width: int | None) -> str | list[int]:
    """Check a text prompt or a list of token ids, which must not be empty. Raises InvalidRequest."""
    if isinstance(prompt, str):
        if not prompt:
            refuse("empty_prompt", "prompt", "prompt is empty: a row needs at least one token to start from")
        return prompt
    if not isinstance(prompt, list):
        refuse("invalid_type", "prompt", f"prompt={shown(prompt)}: must be a string or a list of token ids")
    if not prompt:
        refuse("empty_prompt", "prompt", "prompt is an empty list: a row needs at least one token to start from")
    if isinstance(prompt[0], (str, list)):
        _refuse_many(prompt)
    check_prompt_ids(prompt)
    check_token_ids(prompt, MAX_INT + 1 if width is None else width)
    return prompt


def check_messages(messages: Any) -> list[Message]:
    """Check chat messages: known roles, their content a text or a list of text parts. Raises InvalidRequest."""
    if not isinstance(messages, list):
        refuse("invalid_type", "messages", f"messages={shown(messages)}: must be a list of messages")
    if not messages:
        refuse("empty_array", "messages", "messages is empty: a chat needs at least one message")
    return [_message(f"messages[{i}]", message) for i, message in enumerate(messages)]


def _refuse_many(prompt: list[Any]) -> None:
    for i, entry in enumerate(prompt):
        if type(entry) is not type(prompt[0]):
            refuse("invalid_type", "prompt", f"prompt[{i}] is {shown(entry)}: a prompt is a string or token ids")
        if isinstance(entry, list):
            check_prompt_ids(entry)
    refuse("unsupported_parameter", "prompt", f"prompt holds {len(prompt)} prompts: give each its own row")


def _message(where: str, message: Any) -> Message:
    if not isinstance(message, dict):
        refuse("invalid_type", where, f"{where}={shown(message)}: must be an object with role and content")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES if isinstance(role, str) else True:
        code = "missing_required_parameter" if "role" not in message else "invalid_value"
        refuse(code, f"{where}.role", f"{where}.role={shown(role)}: must be one of {', '.join(sorted(ROLES))}")
    if message.get("function_call"):
        refuse("unsupported_parameter", f"{where}.function_call", f"{where}: function_call is now called tool_calls")
    calls = message.get("tool_calls")
    if calls:
        message = {**message, "tool_calls": check_tool_calls(f"{where}.tool_calls", calls)}
    if isinstance(content, str) or (calls and content is None):
        return dict(message)
    if content is None:
        refuse("missing_required_parameter", f"{where}.content", f"{where} has no content")
    if not isinstance(content, list):
        refuse("invalid_type", f"{where}.content", f"{where}.content={shown(content)}: must be text or a list of parts")
    parts = [_part(f"{where}.content[{i}]", part) for i, part in enumerate(content)]
    if not parts:
        refuse("empty_array", f"{where}.content", f"{where}.content is an empty list")
    return {**message, "content": parts}  # joined where the chat template expects a text


def _part(where: str, part: Any) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind in _MEDIA:
        refuse("unsupported_content", where, f"{where} is {kind!r}: only text is supported, and nothing is fetched")
    if kind not in ("text", "input_text") or not isinstance(part.get("text"), str):
        refuse("invalid_value", where, f'{where}={shown(part)}: must be {{"type": "text", "text": "..."}}')
    return {"type": "text", "text": part["text"]}

"""The bad inputs that a job can meet (docs/bad_input.md), each with the code it must give; bad_doc.py prints them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

CHAT_URL = "/v1/chat/completions"
TEXT_URL = "/v1/completions"
DROP = object()


@dataclass(frozen=True)
class Case:
    """`line` takes the place of one good row of a plain, chat or completion job; `code` None means it is answered."""

    number: int
    what: str
    dialect: str
    line: bytes
    code: str | None
    name: str | None = "bad"


def good_row(dialect: str, i: int) -> dict[str, Any]:
    """One row that any job must answer."""
    if dialect == "plain":
        return {"custom_id": f"row-{i}", "prompt": f"good prompt {i}", "max_tokens": 3 + i % 3}
    if dialect == "chat":
        body: dict[str, Any] = {"messages": [{"role": "user", "content": f"good {i}"}]}
    else:
        body = {"prompt": f"good prompt {i}"}
    url = CHAT_URL if dialect == "chat" else TEXT_URL
    return {"custom_id": f"row-{i}", "method": "POST", "url": url, "body": {"model": "fake", "max_tokens": 4, **body}}


def _row(dialect: str, changes: dict[str, Any]) -> bytes:
    row = good_row(dialect, 0) | {"custom_id": "bad"}
    target = row if dialect == "plain" else row["body"]
    for name, value in changes.items():
        if value is DROP:
            target.pop(name, None)
        else:
            target[name] = value
    return json.dumps(row).encode()


def _envelope(changes: dict[str, Any]) -> bytes:
    row = good_row("chat", 0) | {"custom_id": "bad"} | changes
    return json.dumps({name: value for name, value in row.items() if value is not DROP}).encode()


def _fields(number: int, code: str | None, *changes: dict[str, Any], what: str | None = None) -> list[Case]:
    """The same fields in a plain row and in an OpenAI body (a chat, or a completion where `prompt` is at fault)."""
    cases = []
    for change in changes:
        label = what or ", ".join(f"`{n}` {_brief(v)}" for n, v in change.items())
        text = "messages" not in change and ("prompt" in change or "best_of" in change)
        other = "completion" if text else "chat"
        cases.append(Case(number, label, "plain", _row("plain", change), code))
        cases.append(Case(number, label, other, _row(other, change), code))
    return cases


def _brief(value: Any) -> str:
    if value is DROP:
        return "missing"
    text = json.dumps(value)
    return text if len(text) <= 48 else f"{text[:24]}… ({len(text):,} characters)"


def _lines() -> list[Case]:
    """Cases of a line that cannot be read: no id is known."""
    good = json.dumps({"custom_id": "bad", "prompt": "x"})
    table = [
        (10, "a list", b"[1]", "invalid_json_line"),
        (10, "a string", b'"x"', "invalid_json_line"),
        (10, "null", b"null", "invalid_json_line"),
        (10, "a number", b"42", "invalid_json_line"),
        (11, "trailing comma", b'{"prompt": "x",}', "invalid_json_line"),
        (11, "single quotes", b"{'prompt': 'x'}", "invalid_json_line"),
        (11, "comment", b'{"prompt": "x"} // why', "invalid_json_line"),
        (12, "two objects on a line", f"{good} {good}".encode(), "invalid_json_line"),
        (13, "NUL bytes", b"\x00" * 40, "invalid_json_line"),
        (14, "17 MB on one line (limit 16 MB)", b'{"prompt": "' + b"x" * 17 * 2**20 + b'"}', "line_too_long"),
        (60, "nested 100,000 deep", b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json_line"),
    ]
    readable = [
        (5, "byte 0xFF in a line", b'"prompt": "a\xffb"'),
        (17, "control character in a string", b'"prompt": "a\x01b"'),
        (39, "`temperature` NaN", b'"prompt": "x", "temperature": NaN'),
        (39, "`temperature` 1E400", b'"prompt": "x", "temperature": 1E400'),
        (39, "`seed` of 5,000 digits", b'"prompt": "x", "seed": ' + b"9" * 5_000),
        (61, "lone surrogate in a text", b'"prompt": "a\\ud800b"'),
        (60, "nested 129 deep", b'"prompt": "x", "metadata": ' + b"[" * 128 + b"]" * 128),
        (60, "nested 300 deep", b'"prompt": "x", "metadata": ' + b'{"a":' * 299 + b"1" + b"}" * 299),
        (60, "`prompt` nested 501 deep", b'"prompt": ' + b"[" * 500 + b"]" * 500),
    ]
    dialects = ("plain", "chat")
    cases = [Case(n, what, dialect, line, code, None) for n, what, line, code in table for dialect in dialects]
    for n, what, rest in readable:
        line = b'{"custom_id": "bad", ' + rest + b"}"
        cases += [Case(n, what, dialect, line, "invalid_json_line", "bad") for dialect in dialects]
    return cases


def _envelopes() -> list[Case]:
    def case(number: int, what: str, code: str, changes: dict[str, Any], name: str | None = "bad") -> Case:
        return Case(number, what, "chat", _envelope(changes), code, name)

    long = "i" * 10_000
    return [
        case(19, "`custom_id` missing", "missing_required_parameter", {"custom_id": DROP}, None),
        case(20, "`custom_id` used before", "duplicate_custom_id", {"custom_id": "row-3"}, "row-3"),
        case(21, "`custom_id` 123", "invalid_type", {"custom_id": 123}, None),
        case(21, "`custom_id` null", "invalid_type", {"custom_id": None}, None),
        case(21, '`custom_id` ""', "invalid_value", {"custom_id": ""}, None),
        case(22, "`custom_id` of 10,000 characters", "string_too_long", {"custom_id": long}, long),
        case(23, "`method` GET", "invalid_method", {"method": "GET"}),
        case(23, "`method` missing", "invalid_method", {"method": DROP}),
        case(24, "`url` of another endpoint", "url_mismatch", {"url": TEXT_URL}),
        case(25, "`url` unknown", "invalid_url", {"url": "/v1/teapots"}),
        case(25, "`url` 7", "invalid_url", {"url": 7}),
        case(26, "`body` missing", "invalid_body", {"body": DROP}),
        case(26, "`body` a string", "invalid_body", {"body": "x"}),
        case(26, "`body` a list", "invalid_body", {"body": [1]}),
    ]


def _messages() -> list[Case]:
    def chat(number: int, code: str, what: str, messages: Any) -> list[Case]:
        return _fields(number, code, {"messages": messages, "prompt": DROP}, what=what)

    def part(part: Any) -> Any:
        return [{"role": "user", "content": [{"type": "text", "text": "see"}, part]}]

    link = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}
    local = {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}
    return [
        case
        for cases in (
            chat(29, "empty_array", "`messages` []", []),
            chat(52, "invalid_value", "unknown role", [{"role": "robot", "content": "x"}]),
            chat(52, "invalid_value", "role 7", [{"role": 7, "content": "x"}]),
            chat(52, "missing_required_parameter", "message without role", [{"content": "x"}]),
            chat(52, "missing_required_parameter", "message without content", [{"role": "user"}]),
            chat(52, "invalid_type", "content 7", [{"role": "user", "content": 7}]),
            chat(52, "invalid_type", "message a string", ["x"]),
            chat(52, "invalid_value", "unknown content part", part({"type": "smell"})),
            chat(52, "invalid_value", "a role the template cannot render", [{"role": "function", "content": "x"}]),
            chat(53, "unsupported_content", "`image_url` of a link-local address", part(link)),
            chat(53, "unsupported_content", "`image_url` of a local file", part(local)),
        )
        for case in cases
    ]


def _requests() -> list[Case]:
    bad_tool = [{"type": "x"}]
    bad_pattern = [{"type": "function", "function": {"name": "f", "parameters": {"pattern": 7}}}]
    spread = [
        _fields(27, "model_not_found", {"model": "gpt-unknown"}),
        _fields(28, "unsupported_parameter", {"stream": True}),
        _fields(30, "empty_prompt", {"prompt": ""}, {"prompt": []}),
        _fields(31, "invalid_token_id", {"prompt": [1, -1]}, {"prompt": [1, 512]}, {"prompt": [2**40]}),
        _fields(32, "invalid_type", {"prompt": [1, "a"]}, {"prompt": [True]}, {"prompt": [[1], [2.5]]}),
        _fields(32, "invalid_type", {"prompt": 7}, {"prompt": [1.0]}),
        _fields(33, "context_length_exceeded", {"prompt": "x" * 100}, what="prompt of 100 tokens, context 64"),
        _fields(
            34, "context_length_exceeded", {"prompt": "x" * 64, "max_tokens": 1}, what="prompt as long as the context"
        ),
        _fields(34, None, {"prompt": "x" * 63, "max_tokens": 1}, what="prompt one shorter than the context"),
        _fields(35, "invalid_value", {"max_tokens": 0}, {"max_tokens": -1}, {"max_tokens": 2**31}),
        _fields(35, "invalid_type", {"max_tokens": 1.5}, {"max_tokens": "5"}, {"max_completion_tokens": "5"}),
        _fields(36, "invalid_value", {"n": 0}, {"n": -1}, {"n": 1_000_000}),
        _fields(37, "invalid_value", {"n": 3, "best_of": 2}),
        _fields(38, "invalid_value", *({"logprobs": True, "top_logprobs": k} for k in (-1, 21, 10**6))),
        _fields(38, "invalid_value", {"prompt_logprobs": -1}, {"prompt_logprobs": 512}),
        _fields(39, "invalid_value", {"temperature": -0.1}, {"temperature": 100.1}),
        _fields(39, "invalid_type", {"temperature": "hot"}),
        _fields(39, None, {"temperature": None}),
        _fields(40, "invalid_value", {"top_p": 0}, {"top_p": -0.1}, {"top_p": 1.1}, {"top_k": -2}, {"min_p": 1.5}),
        _fields(41, "invalid_value", {"stop": ["a"] * 65}, {"stop": ["a"] * 500_000}, {"stop": ""}, {"stop": [""]}),
        _fields(41, "invalid_type", {"stop": 7}),
        _fields(42, "invalid_value", {"logit_bias": {"abc": 1}}, {"logit_bias": {"3": 101}}),
        _fields(42, "invalid_token_id", {"logit_bias": {"512": 1}}),
        _fields(43, "invalid_type", {"seed": "x"}, {"seed": 1.5}),
        _fields(43, "invalid_value", {"seed": 2**64}, {"seed": 2**63}),
        _fields(
            44, "invalid_token_id", {"stop_token_ids": [512]}, {"allowed_token_ids": [512]}, {"stop_token_ids": [-1]}
        ),
        _fields(45, "invalid_value", {"presence_penalty": 3}, {"repetition_penalty": 0}, {"repetition_penalty": -1}),
        _fields(45, "invalid_type", {"bad_words": [512]}, {"bad_words": "no"}, {"allowed_token_ids": "3"}),
        _fields(46, "invalid_grammar", {"structured_outputs": {"regex": "foo**("}}),
        _fields(48, "invalid_type", {"response_format": {"type": "json_schema", "json_schema": {}}}),
        _fields(49, None, {"max_tokns": 3}, what="`max_tokns`, not strict (a warning is counted)"),
        _fields(50, "invalid_tool", {"tools": bad_tool}),
        _fields(50, "invalid_tool", {"tools": bad_pattern}),
        _fields(
            51, "unsupported_parameter", {"chat_template_kwargs": {"tokenize": True}}, {"chat_template": "{{ x }}"}
        ),
        _fields(55, "unsupported_parameter", {"prompt_embeds": "gASVAAAA"}),
        _fields(56, "model_not_found", {"model": "../../x"}, {"model": "Qwen/Qwen3-0.6B"}),
    ]
    return [case for cases in spread for case in cases]


CASES: tuple[Case, ...] = tuple(
    sorted([*_lines(), *_envelopes(), *_messages(), *_requests()], key=lambda case: case.number)
)

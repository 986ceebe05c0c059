"""One line of JSON to an object, or a message that says what is wrong with it and where."""

from __future__ import annotations

from typing import Any

import orjson

from umbel.errors import InvalidRequest


def decode_object(line: bytes, number: int) -> dict[str, Any]:
    """The JSON object of physical line `number`. Raises InvalidRequest `invalid_json_line`."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest("invalid_json_line", f"line {number}: {_why(line, error)}") from None
    if not isinstance(value, dict):
        kind = {list: "an array", str: "a string", type(None): "null", bool: "a boolean"}.get(type(value), "a number")
        raise InvalidRequest("invalid_json_line", f"line {number}: not an object but {kind}")
    return value


def _why(line: bytes, error: orjson.JSONDecodeError) -> str:
    if line[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "not UTF-8 but UTF-16; convert the file with: iconv -f utf-16 -t utf-8"
    try:
        line.decode()
    except UnicodeDecodeError as bad:
        return f"not UTF-8: byte 0x{line[bad.start]:02x} at byte offset {bad.start} of the line"
    if b"\x00" in line:
        return f"not JSON: NUL byte at byte offset {line.index(0)} of the line"
    if error.msg.startswith("unexpected end"):
        hint = "" if line.endswith(b"\n") else "; the file ends here without a newline, so it may be truncated"
        return f"not JSON: the object is cut off{hint}"
    if error.msg.startswith("unexpected content after"):
        return f"extra data after the object, at column {error.colno}: one object a line"
    return f"not JSON: {error.msg} at column {error.colno}"

"""One line of JSON to an object, or a message that says what is wrong with it and where."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import orjson

from umbel.errors import InvalidRequest
from umbel.ir.limits import MAX_DEPTH

ID_DEPTH = 512
"""How deep a line may be nested for its id to be looked for; Python's own reader gives up not far beyond."""
_ESCAPED = re.compile(rb"\\.", re.DOTALL)


def decode_object(line: bytes, number: int) -> dict[str, Any]:
    """The JSON object of physical line `number`. Raises InvalidRequest `invalid_json_line`."""
    deep = len(line) > 2 * MAX_DEPTH and line.count(b"[") + line.count(b"{") > MAX_DEPTH  # else it closes none of them
    if deep and (depth := _nesting(line)) > MAX_DEPTH:
        message = f"line {number}: nested {depth:,} deep: at most {MAX_DEPTH} lists and objects within one another"
        raise InvalidRequest("invalid_json_line", message)
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest("invalid_json_line", f"line {number}: {_why(line, error)}") from None
    if not isinstance(value, dict):
        kind = {list: "an array", str: "a string", type(None): "null", bool: "a boolean"}.get(type(value), "a number")
        raise InvalidRequest("invalid_json_line", f"line {number}: not an object but {kind}")
    return value


def decode_leniently(line: bytes) -> dict[str, Any] | None:
    """The object of a line that `decode_object` refuses, read leniently enough to find the row's id.

    Accepts numbers beyond a float's range, NaN, lone surrogates, control characters and bytes that are not UTF-8. None
    when there is no object, or one nested more than `ID_DEPTH` deep.
    """
    if line.count(b"[") + line.count(b"{") > ID_DEPTH and _nesting(line) > ID_DEPTH:
        return None
    try:
        value = json.loads(line.decode("utf-8", "surrogateescape"), strict=False, parse_int=float)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _nesting(line: bytes) -> int:
    """How deep lists and objects are nested in a line."""
    outside = b"".join(_ESCAPED.sub(b"", line).split(b'"')[::2])  # what is not in quotation marks
    text = np.frombuffer(outside, np.uint8)
    opens, closes = (text == ord("[")) | (text == ord("{")), (text == ord("]")) | (text == ord("}"))
    return int(np.cumsum(opens.astype(np.int64) - closes).max(initial=0))


def _why(line: bytes, error: orjson.JSONDecodeError) -> str:
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

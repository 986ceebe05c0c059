"""Custom ids of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.errors import InvalidRequest
from umbel.ir.limits import MAX_CUSTOM_ID_CHARS, shown


def id_in(item: Mapping[str, Any], field: str = "custom_id") -> str | None:
    """The custom id that an object gives, None when it gives none that can be written into the output."""
    name = _as_id(item.get(field), field)
    return name if isinstance(name, str) and name and is_unicode(name) else None


def is_unicode(text: str) -> bool:
    """Whether text can be written as UTF-8: it has no lone surrogates, which stand for bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def custom_id_of(
    item: Mapping[str, Any], row: int, field: str, *, required: bool
) -> tuple[str | None, bool, InvalidRequest | None]:
    """The id of row number `row`, from its `field`: the one to show, whether the row gave it, what is wrong with it."""
    if field not in item:
        if not required:
            return str(row), False, None
        return None, False, InvalidRequest("missing_required_parameter", f"{field} is missing", field)
    value = _as_id(item[field], field)
    if not isinstance(value, str):
        return None, False, InvalidRequest("invalid_type", f"{field}={shown(value)}: must be a string", field)
    if not value:
        return None, False, InvalidRequest("invalid_value", f"{field} is empty", field)
    if len(value) > MAX_CUSTOM_ID_CHARS:
        message = f"{field} has {len(value):,} characters: at most {MAX_CUSTOM_ID_CHARS}"
        return value, True, InvalidRequest("string_too_long", message, field)
    return value, True, None


def _as_id(value: object, field: str) -> object:
    """The value of a field as an id: of one that was named for it, whole numbers are ids too."""
    named = field != "custom_id" and isinstance(value, int) and not isinstance(value, bool)
    return str(value) if named else value

"""The forms that rows ask their answers to have, each checked once: rows mostly share theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from umbel.errors import InvalidRequest
from umbel.ir.structured import FORM_FIELDS, StructuredOutputsParams, structured_in

_MEMO_ENTRIES = 4_096
_NONE = {"response_format": {"type": "text"}}


class Forms:
    """Forms by the JSON of their fields."""

    def __init__(self) -> None:
        self._known: dict[bytes, StructuredOutputsParams | InvalidRequest | None] = {}

    def told(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Fields of a row with what they say about the form of its answer as a record. Raises InvalidRequest."""
        if asked.keys().isdisjoint(FORM_FIELDS):
            return asked
        form = {name: asked[name] for name in asked if name in FORM_FIELDS and asked[name] is not None}
        rest = {name: value for name, value in asked.items() if name not in FORM_FIELDS}
        if not form:
            return rest
        found = self._form(form)
        return rest | (_NONE if found is None else {"structured_outputs": found})

    def _form(self, form: Mapping[str, Any]) -> StructuredOutputsParams | None:
        key = orjson.dumps(form, default=repr)
        if key not in self._known:
            if len(self._known) >= _MEMO_ENTRIES:
                self._known.clear()
            self._known[key] = _checked(form)
        found = self._known[key]
        if isinstance(found, InvalidRequest):
            raise InvalidRequest(found.code, found.message, found.param)
        return found


def _checked(form: Mapping[str, Any]) -> StructuredOutputsParams | InvalidRequest | None:
    """The form, or why there is none."""
    try:
        return structured_in(form)
    except InvalidRequest as error:
        return error

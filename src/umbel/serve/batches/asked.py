"""What a client asks of a new batch, read from the body of its request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from umbel.errors import UsageError, nearest
from umbel.ir.budget import seconds_of
from umbel.ir.limits import refuse, shown
from umbel.jobs.read.formats.parse import ENDPOINTS
from umbel.serve.batches.records import BatchRecord
from umbel.serve.batches.response_lines import ANY
from umbel.serve.batches.response_lines import URL as RESPONSES

_FIELDS = frozenset({"input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"})
_LONGEST, _PAIRS, _NAME, _VALUE = 366 * 86_400, 16, 64, 512
_SHORTEST_KEPT, _LONGEST_KEPT = 3_600, 30 * 86_400  # seconds, as OpenAI has them


@dataclass(frozen=True, slots=True)
class Terms:
    """The parts of a request that make two of them the same."""

    endpoint: str
    input_file_id: str
    completion_window: str
    metadata: Mapping[str, str] | None
    output_seconds: int | None

    def are_of(self, batch: BatchRecord) -> bool:
        """Whether a batch was made by the same request."""
        return all(getattr(batch, name) == getattr(self, name) for name in self.__slots__)


@dataclass(frozen=True, slots=True)
class BatchAsked:
    """A batch that is asked for, and how many seconds it may take."""

    terms: Terms
    seconds: int

    @property
    def input_file_id(self) -> str:
        """The file with its requests."""
        return self.terms.input_file_id

    @classmethod
    def of(cls, body: object) -> BatchAsked:
        """Read a request's body. Raises InvalidRequest."""
        if not isinstance(body, Mapping):
            refuse("invalid_type", "body", f"the body is {shown(body)}: must be an object")
        for name in body.keys() - _FIELDS:
            refuse("unknown_parameter", str(name), f"unknown field {shown(name)}{nearest(str(name), _FIELDS)}")
        endpoint, window = _text(body, "endpoint"), _text(body, "completion_window")
        known = (*(name for name in ENDPOINTS if name.startswith("/v1/")), RESPONSES, ANY)
        if endpoint not in known:
            refuse("invalid_value", "endpoint", f"endpoint={shown(endpoint)}: must be one of {', '.join(known)}")
        kept = expires_after(body.get("output_expires_after"), "output_expires_after")
        terms = Terms(endpoint, _text(body, "input_file_id"), window, _metadata(body.get("metadata")), kept)
        return cls(terms, _seconds(window))


def expires_after(value: object, name: str) -> int | None:
    """The seconds of an object that says when a file expires, None for no object. Raises InvalidRequest."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or value.get("anchor") != "created_at":
        refuse("invalid_value", name, f"{name}={shown(value)}: must be an object with anchor 'created_at' and seconds")
    seconds = value.get("seconds")
    whole = isinstance(seconds, int) and not isinstance(seconds, bool)
    if not whole or not _SHORTEST_KEPT <= seconds <= _LONGEST_KEPT:
        limits = f"a whole number from {_SHORTEST_KEPT:,} to {_LONGEST_KEPT:,}"
        refuse("invalid_value", name, f"{name}.seconds={shown(seconds)}: must be {limits}")
    return seconds


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        refuse("missing_required_parameter", name, f"{name} is missing")
    if not isinstance(value, str):
        refuse("invalid_type", name, f"{name}={shown(value)}: must be a string")
    return value


def _seconds(window: str) -> int:
    try:
        seconds = seconds_of(window, "completion_window")
    except UsageError as error:
        refuse("invalid_value", "completion_window", f"{error}; OpenAI knows '24h' alone")
    if not 1 <= seconds <= _LONGEST:
        refuse("invalid_value", "completion_window", f"{shown(window)}: must be from 1s to {_LONGEST}s")
    return int(seconds)


def _metadata(value: object) -> Mapping[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or len(value) > _PAIRS:
        refuse("invalid_value", "metadata", f"metadata={shown(value)}: must be an object of at most {_PAIRS} pairs")
    for name, text in value.items():
        if not isinstance(text, str) or len(name) > _NAME or len(text) > _VALUE:
            limits = f"names of at most {_NAME} characters and texts of at most {_VALUE}"
            refuse("invalid_value", "metadata", f"metadata: {shown(name)}: must have {limits}")
    return dict(value)

"""The columns of an output that is a table: those of the input that came back, and those of the answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from umbel.jobs.read.records import ANSWER_NAMES
from umbel.jobs.write.formats.blocks import blocks

_TEXT, _NUMBERS = pa.string(), pa.list_(pa.float64())
_VECTORS = ("embedding", "probs")
_CUT = frozenset({"cut_prompt_tokens"})  # of usage, where a prompt was too long
_PLAIN_NAMES = (
    *("text", "token_ids", "finish_reason", "logprobs", "choices", "usage", "prompt_logprobs", "scores", "choice"),
    *("choice_logprobs", "choice_probabilities", "embedding", "probs", "error"),
)


@dataclass(frozen=True, slots=True)
class TableShape:
    """What a pass over all rows tells: whether they are OpenAI's, which columns of the input come back on them and of
    which types, in the order in which they first appear, which columns of answers are `filled`, and how many numbers
    the vectors in them have, where all have as many (`sizes`)."""

    openai: bool
    kept: Mapping[str, pa.DataType]
    filled: frozenset[str]
    sizes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: Iterable[bytes]) -> TableShape:
        """The shape of an output with these lines."""
        kept, openai, filled = dict[str, _Column](), False, set[str]()
        sizes: dict[str, set[int]] = {name: set() for name in _VECTORS}
        for block in blocks(lines):
            items = [orjson.loads(line) for line in block]
            openai = openai or "response" in items[0]
            if openai:
                break
            for item in items:
                for name, value in item.items():
                    if name not in ANSWER_NAMES:
                        kept.setdefault(name, _Column()).values.append(value)
                    elif value is not None:
                        filled.add(name)
                        if name in sizes:
                            sizes[name].add(len(value))
                filled |= _CUT & (item.get("usage") or {}).keys()
            for column in kept.values():
                column.settle()
        whole = {name: found.pop() for name, found in sizes.items() if len(found) == 1}
        return cls(openai, {name: column.type for name, column in kept.items()}, frozenset(filled), whole)

    def names(self, *, all_answers: bool) -> list[str]:
        """The columns in order; those of answers that no row fills are left out on request."""
        if self.openai:
            return ["custom_id", "id", "response", "error"]
        always = frozenset({"text", "finish_reason", "error"}) | self.filled
        return ["custom_id", *self.kept, *(name for name in _PLAIN_NAMES if all_answers or name in always)]


@dataclass(slots=True)
class _Column:
    """The type of a column of JSON values, found block by block: text in JSON where its values have none in common."""

    values: list[Any] = field(default_factory=list)
    type: pa.DataType = field(default_factory=pa.null)

    def settle(self) -> None:
        """Take the values in."""
        values, self.values = self.values, []
        if self.type == _TEXT and all(isinstance(value, str) for value in values):
            return
        self.type = _common(self.type, values)


def _common(before: pa.DataType, values: Sequence[Any]) -> pa.DataType:
    try:
        fields = [pa.schema([pa.field("x", kind)]) for kind in (before, pa.array(values).type)]
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return _TEXT


def writable(kind: pa.DataType) -> pa.DataType:
    """A type that every reader of tables takes: text instead of nothing and of objects without fields."""
    if pa.types.is_null(kind):
        return _TEXT
    if pa.types.is_list(kind):
        return pa.list_(writable(kind.value_type))
    if pa.types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return pa.struct([(one.name, writable(one.type)) for one in fields]) if fields else _TEXT
    return kind


def answer_types(shape: TableShape) -> dict[str, pa.DataType]:
    """The types of the columns of answers; those of OpenAI's lines hold JSON in `response`."""
    error = pa.struct([("message", _TEXT), ("type", _TEXT), ("param", _TEXT), ("code", _TEXT)])
    if shape.openai:
        return {"custom_id": _TEXT, "id": _TEXT, "response": _TEXT, "error": error}
    ids = pa.list_(pa.int32())
    token = [("token_id", pa.int32()), ("token", _TEXT), ("logprob", pa.float64())]
    logprobs = pa.list_(pa.struct([*token, ("top", pa.list_(pa.struct(token)))]))
    answer = [("text", _TEXT), ("token_ids", ids), ("finish_reason", _TEXT), ("logprobs", logprobs)]
    usage = ["prompt_tokens", "completion_tokens", *(_CUT & shape.filled)]
    score = pa.struct(
        [("logprob", pa.float64()), ("mean", pa.float64()), ("token_ids", ids), ("token_logprobs", _NUMBERS)]
    )
    return {
        "custom_id": _TEXT,
        **dict(answer),
        "choices": pa.list_(pa.struct([("index", pa.int32()), *answer])),
        "usage": pa.struct([(name, pa.int64()) for name in usage]),
        "prompt_logprobs": logprobs,
        "scores": pa.list_(score),
        "choice": _TEXT,
        "choice_logprobs": _NUMBERS,
        "choice_probabilities": _NUMBERS,
        **{name: pa.list_(pa.float32(), shape.sizes.get(name, -1)) for name in _VECTORS},
        "error": error,
    }


def record_of(line: bytes, *, openai: bool) -> dict[str, Any]:
    """The cells of a row by column."""
    item: dict[str, Any] = orjson.loads(line)
    if openai and item["response"] is not None:
        item["error"] = item["response"]["body"].get("error") or item["error"]
        item["response"] = orjson.dumps(item["response"]).decode()
    return item

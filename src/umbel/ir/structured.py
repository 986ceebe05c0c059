"""What an answer has to be like: a JSON schema, a regular expression, one of some texts, a grammar."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from umbel.ir.grammars import check_definition, definition_of
from umbel.ir.limits import check_bool, refuse, shown

KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
MAX_CHARS = 2**19
GUIDED: Mapping[str, str] = MappingProxyType(
    {f"guided_{kind}": kind for kind in ("json", "regex", "choice", "grammar")} | {"structural_tag": "structural_tag"}
)
"""vLLM's old names of fields by those they have become."""
_NAME = "structured_outputs"
FORM_FIELDS = frozenset({_NAME, "response_format", *GUIDED})
_ASK_FOR_NOTHING = ("disable_additional_properties", "disable_fallback")


@dataclass(frozen=True, slots=True)
class StructuredOutputsParams:
    """One thing that a whole answer has to be, with vLLM's names: `json` (a schema, as an object or its text), `regex`,
    `choice` (one of these texts), `grammar` (Lark as llguidance has it, or GBNF), `json_object` (any object) or
    `structural_tag` (free text in which what begins like a tag is one).

    `disable_any_whitespace`: JSON has no blanks but in its strings. `whitespace_pattern`: the regular expression of
    blanks in it. Raises InvalidRequest with llguidance's reason for what it cannot follow, and with the command that
    installs it where it is missing; what is given is never weakened.
    """

    json: str | None = None
    regex: str | None = None
    choice: tuple[str, ...] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | None = None
    disable_any_whitespace: bool = False
    whitespace_pattern: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "json_object", self.json_object or None)
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            said = ", ".join(given) or "none"
            refuse("invalid_value", _NAME, f"{_NAME} has {said}: give one of {', '.join(KINDS)}")
        (kind,) = given
        object.__setattr__(self, kind, _CHECKS[kind](f"{_NAME}.{kind}", getattr(self, kind)))
        check_bool(f"{_NAME}.disable_any_whitespace", self.disable_any_whitespace)
        if self.whitespace_pattern is not None:
            _text(f"{_NAME}.whitespace_pattern", self.whitespace_pattern)
        check_definition(f"{_NAME}.{kind}", self.definition)

    @property
    def kind(self) -> str:
        """Which of them is given."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def definition(self) -> str:
        """The grammar as llguidance takes it."""
        value = getattr(self, self.kind)
        return definition_of(
            self.kind, value, tight=self.disable_any_whitespace, whitespace_pattern=self.whitespace_pattern
        )


def structured_of(value: object) -> StructuredOutputsParams | None:
    """The record that the field `structured_outputs` of a row asks for, as an object or its text; None where it asks
    for nothing. Raises InvalidRequest."""
    if value is None or isinstance(value, StructuredOutputsParams):
        return value
    given = {name: one for name, one in _object(_NAME, value).items() if one is not None}
    for name in _ASK_FOR_NOTHING:
        if given.pop(name, False) is not False:
            refuse("unsupported_parameter", f"{_NAME}.{name}", f"{_NAME}.{name}=true: not supported; leave it out")
    for name in given.keys() - set(StructuredOutputsParams.__dataclass_fields__):
        refuse("unknown_parameter", _NAME, f"{_NAME} has the unknown field {shown(name)}: give {', '.join(KINDS)}")
    if not any(given.get(kind) not in (None, False) for kind in KINDS):
        return None
    return StructuredOutputsParams(**given)


def structured_in(body: Mapping[str, Any]) -> StructuredOutputsParams | None:
    """What a row asks for by any of its names: `structured_outputs`, `response_format`, `guided_json` and the like.
    Raises InvalidRequest where it asks by two of them."""
    found = {}
    if (asked := structured_of(body.get(_NAME))) is not None:
        found[_NAME] = asked
    if (asked := _of_response_format(body.get("response_format"))) is not None:
        found["response_format"] = asked
    for name, kind in GUIDED.items():
        if body.get(name) is not None:
            found[name] = StructuredOutputsParams(**{kind: body[name]})
    if len(found) > 1:
        refuse("invalid_value", next(iter(found)), f"{' and '.join(found)} are both given: an answer has one form")
    return next(iter(found.values()), None)


def _of_response_format(value: object) -> StructuredOutputsParams | None:
    """OpenAI's `response_format`, also as its text; a schema is obeyed with `strict` and without."""
    if value is None:
        return None
    name = "response_format"
    given = _object(name, value)
    kind = given.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutputsParams(json_object=True)
    if kind == "structural_tag":
        return StructuredOutputsParams(structural_tag=json.dumps(given))
    if kind != "json_schema":
        known = "text, json_object, json_schema, structural_tag"
        refuse("invalid_value", f"{name}.type", f"{name}.type={shown(kind)}: must be one of {known}")
    inner = given.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if not isinstance(schema, dict):
        message = f"{name}.json_schema.schema={shown(schema)}: must be an object, the JSON schema"
        refuse("invalid_type", f"{name}.json_schema", message)
    return StructuredOutputsParams(json=schema)  # type: ignore[arg-type]  # which becomes its text


def _object(name: str, value: object) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            refuse("invalid_value", name, f"{name}: no JSON ({error})")
    if not isinstance(value, Mapping):
        refuse("invalid_type", name, f"{name}={shown(value)}: must be an object")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        refuse("invalid_type", name, f"{name}={shown(value)}: must be a text")
    if not value:
        refuse("invalid_value", name, f"{name} is empty")
    if len(value) > MAX_CHARS:
        refuse("invalid_value", name, f"{name} has {len(value):,} characters: at most {MAX_CHARS:,}")
    return value


def _schema(name: str, value: object) -> str:
    """The text of a schema, in which properties keep their order."""
    if isinstance(value, str):
        _object(name, _text(name, value))
        return value
    try:
        return _text(name, json.dumps(_object(name, value), ensure_ascii=False))
    except (TypeError, ValueError, RecursionError) as error:
        refuse("invalid_value", name, f"{name}: cannot be written as JSON ({error})")


def _choice(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        refuse("invalid_type", name, f"{name}={shown(value)}: must be a list of texts")
    if not value or not all(isinstance(one, str) and one for one in value):
        refuse("invalid_value", name, f"{name}={shown(value)}: must hold texts, none of them empty")
    if sum(map(len, value)) > MAX_CHARS:
        refuse("invalid_value", name, f"{name} has more than {MAX_CHARS:,} characters")
    return tuple(value)


_CHECKS: Mapping[str, Callable[[str, Any], object]] = MappingProxyType(
    {
        "json": _schema,
        "regex": _text,
        "choice": _choice,
        "grammar": _text,
        "json_object": check_bool,
        "structural_tag": _schema,
    }
)

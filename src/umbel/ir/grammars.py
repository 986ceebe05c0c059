"""Grammars as llguidance takes them, checked within limits: what it cannot follow is refused with its reason."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from umbel.errors import InvalidRequest
from umbel.ir.limits import refuse

T = TypeVar("T")

MAX_RULES = 1_000
MAX_ITEMS = 20_000  # ways in which a text may go on that a grammar is followed into: ten times llguidance's own limit
INSTALL = "pip install 'umbel[grammar]'"
_STACK = 2**29  # bytes: compiling goes as deep as definitions refer to others, which may be a hundred thousand levels
_STACK_LOCK = threading.Lock()
_RULE = re.compile(r"^[ \t]*[!?]?[\w-]+[^\n:\"/]*(?:::=|:)", re.MULTILINE)


def library() -> Any:
    """The module llguidance. Raises InvalidRequest where it is not installed, with the command that installs it."""
    try:
        import llguidance
    except ImportError:
        refuse("unsupported_parameter", "structured_outputs", f"answers of a given form need llguidance: {INSTALL}")
    return llguidance


def limits() -> Any:
    """What compiling a grammar and following it may take."""
    return library().LLParserLimits(max_items_in_row=MAX_ITEMS, verbose_errors=False)


def definition_of(kind: str, value: Any, *, tight: bool, whitespace_pattern: str | None) -> str:
    """The grammar of an answer as llguidance has them; `tight` and `whitespace_pattern` are about the blanks of JSON.
    Raises InvalidRequest for a grammar that cannot be read."""
    blanks = {"whitespace_flexible": not tight, "whitespace_pattern": whitespace_pattern}
    given = {name: one for name, one in blanks.items() if one is not None}
    return _MAKE[kind](value, given)


def check_definition(name: str, definition: str) -> None:
    """Raise InvalidRequest about field `name` for a grammar that llguidance cannot follow."""
    ll = library()
    bad, said = on_deep_stack(lambda: ll.LLMatcher.validate_grammar_with_warnings(definition, None, limits=limits()))
    if bad:
        refuse("invalid_grammar", name, f"{name}: {brief(said[0])}")


def brief(message: str) -> str:
    """llguidance's reason in one line."""
    reason = message.split("<state>", maxsplit=1)[0].split("<backtrace>", maxsplit=1)[0]
    text = " ".join(reason.split())
    return text if len(text) <= 300 else f"{text[:300]}..."


def on_deep_stack(call: Callable[[], T]) -> T:
    """What a call gives that may go deep, in a thread of its own; one that goes too deep would end the process."""
    found: list[T] = []
    thread = _deep_thread(lambda: found.append(call()))
    thread.join()
    return found[0]


def _deep_thread(run: Callable[[], None]) -> threading.Thread:
    with _STACK_LOCK:
        before = threading.stack_size(_STACK)
        try:
            thread = threading.Thread(target=run, name="umbel-grammar")
            thread.start()
        finally:
            threading.stack_size(before)
    return thread


def _of_schema(schema: str, blanks: Mapping[str, Any]) -> str:
    overrides = {"lenient": False, "coerce_one_of": False, **blanks}
    try:
        return str(library().LLMatcher.grammar_from_json_schema(schema, overrides=overrides))
    except ValueError as error:
        raise _refusal("json", error) from None


def _of_object(_: object, blanks: Mapping[str, Any]) -> str:
    return _of_schema('{"type": "object"}', blanks)


def _of_regex(regex: str, _: object) -> str:
    return str(library().LLMatcher.grammar_from_regex(regex))


def _of_choice(choice: Sequence[str], _: object) -> str:
    """One word of the lexer, as rules that begin alike would be followed one by one."""
    words = " | ".join(map(json.dumps, choice))
    return str(library().LLMatcher.grammar_from_lark(f"start: CHOICE\nCHOICE: {words}"))


def _of_grammar(grammar: str, _: object) -> str:
    """A grammar in Lark, or in GBNF, which becomes Lark."""
    if (rules := len(_RULE.findall(grammar))) > MAX_RULES:
        refuse("invalid_grammar", "grammar", f"the grammar has {rules:,} rules: at most {MAX_RULES:,}")
    try:
        return str(library().grammar_from("grammar", grammar))
    except (ValueError, RecursionError) as error:
        raise _refusal("grammar", error) from None


def _of_tag(tag: str, _: object) -> str:
    """Free text in which each trigger begins one of the structures, as vLLM has them."""
    given, ll = json.loads(tag), library()
    structures, triggers = given.get("structures"), given.get("triggers")
    if not isinstance(structures, list) or not structures or not isinstance(triggers, list):
        refuse("invalid_grammar", "structural_tag", "structural_tag: must have lists `structures` and `triggers`")
    try:
        tags = [_tag(ll, one, triggers) for one in structures]
        return str(ll.LLMatcher.grammar_from_lark(ll.StructTag.to_grammar(tags, assume_special=False)))
    except (ValueError, AssertionError, KeyError, TypeError, AttributeError) as error:
        raise _refusal("structural_tag", error) from None


def _tag(ll: Any, structure: Mapping[str, Any], triggers: Sequence[str]) -> Any:
    begin = structure["begin"]
    trigger = next((one for one in triggers if begin.startswith(one)), None)
    if trigger is None:
        raise ValueError(f"{begin!r} begins with none of the triggers")
    return ll.StructTag(trigger=trigger, begin=begin, grammar=structure["schema"], end=structure["end"])


def _refusal(name: str, error: Exception) -> InvalidRequest:
    return InvalidRequest("invalid_grammar", f"{name}: {brief(str(error)) or type(error).__name__}", name)


_MAKE: Mapping[str, Callable[[Any, Mapping[str, Any]], str]] = MappingProxyType(
    {
        "json": _of_schema,
        "regex": _of_regex,
        "choice": _of_choice,
        "grammar": _of_grammar,
        "json_object": _of_object,
        "structural_tag": _of_tag,
    }
)

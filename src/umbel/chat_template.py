"""Renders chat messages with a model's own template, in Jinja's sandbox and within limits of time and size.

A template comes from the model directory, never from a request, and must give the same text as transformers'
`apply_chat_template(add_generation_prompt=True)`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from umbel.errors import InvalidRequest, ModelError

Message = Mapping[str, Any]

MAX_TEMPLATE_CHARS = 2**20
MAX_OUTPUT_CHARS = 32 * 2**20
MAX_SECONDS = 5.0
MAX_PROBE_SECONDS = 1.0
MAX_NUMBER = 10**6
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
PROBE: Sequence[Message] = ({"role": "user", "content": "Hi"},)


class LimitError(jinja2.TemplateError):
    """A template ran for too long or grew too large."""


class ChatTemplate:
    """One compiled template; `special_tokens` (bos_token, eos_token, ...) and `now` are visible to it."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], now: datetime):
        if len(source) > MAX_TEMPLATE_CHARS:
            raise ModelError(
                f"chat template of {len(source):,} characters: at most {MAX_TEMPLATE_CHARS:,} are accepted"
            )
        self._special_tokens = dict(special_tokens)
        self._guard = _Guard()
        environment = _Environment(self._guard, now)
        try:
            self._template = environment.from_string(_guarded(environment.parse(source)))
            self._render(PROBE, MAX_PROBE_SECONDS)
        except (SecurityError, LimitError, jinja2.TemplateSyntaxError, RecursionError) as error:
            raise ModelError(f"chat template refused: {type(error).__name__}: {error}") from None
        except Exception:  # a template may refuse our probe (say, for want of a system message); rows report their own
            pass

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt text of one conversation, ready for the assistant's answer; raises InvalidRequest if it fails."""
        try:
            return self._render(messages, MAX_SECONDS)
        except Exception as error:  # templates fail in as many ways as Python does
            reason = str(error) or type(error).__name__
            raise InvalidRequest("invalid_messages", f"the chat template failed: {reason[:500]}", "messages") from None

    def _render(self, messages: Sequence[Message], seconds: float) -> str:
        pieces, n_chars = [], 0
        self._guard.start(seconds)
        for piece in self._template.generate(
            messages=[_normalised(message) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=True,
            **self._special_tokens,
        ):
            n_chars += len(piece)
            self._guard.check()
            if n_chars > MAX_OUTPUT_CHARS:
                raise LimitError(f"the chat template wrote over {MAX_OUTPUT_CHARS:,} characters")
            pieces.append(piece)
        return "".join(pieces)


class _Guard(threading.local):
    """The clock of the rendering that this thread is in."""

    deadline = float("inf")

    def start(self, seconds: float) -> None:
        # The thread's own time, so that a busy machine makes no honest template fail.
        self.deadline = time.thread_time() + seconds

    def check(self, value: object = None) -> None:
        """Called by the template at every turn of a loop, at every macro call and with every value it assigns."""
        if time.thread_time() > self.deadline:
            raise LimitError("the chat template ran for too many seconds")
        if isinstance(value, (str, list, tuple, dict)) and len(value) > MAX_OUTPUT_CHARS:
            raise LimitError(f"the chat template built a value of {len(value):,} characters or items")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with the settings, filters and functions that transformers gives its templates."""

    intercepted_binops = frozenset(("*", "**"))

    def __init__(self, guard: _Guard, now: datetime):
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.guard_check = guard.check
        self.filters["tojson"] = _to_json
        self.globals.update(raise_exception=_raise, strftime_now=now.strftime, dict=_new_dict, namespace=_Namespace)
        del self.globals["lipsum"]

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Products and powers of bounded size only: `'x' * 10**9` would fill the memory in one expression."""
        numbers = [side for side in (left, right) if isinstance(side, (int, float))]
        if operator == "**" and any(abs(number) > 1000 for number in numbers):
            raise LimitError("the chat template takes a power of a large number")
        longest = max((len(side) for side in (left, right) if isinstance(side, (str, list, tuple))), default=1)
        if any(abs(number) * longest > MAX_OUTPUT_CHARS for number in numbers if longest > 1):
            raise LimitError("the chat template repeats a value too often")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """`{% generation %}` marks what the assistant wrote, for training; here it only shows its body."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's interface

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Namespace(jinja2.utils.Namespace):
    """Jinja's namespace, refusing names that reach for Python internals."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a chat template must not set {name!r}")
        super().__setitem__(name, value)


def _guarded(template: nodes.Template) -> nodes.Template:
    """Insert the guard into loops, macros and assignments; refuse names and numbers that no honest template needs."""
    for name in [node.attr for node in template.find_all(nodes.Getattr)]:
        if name.startswith("__"):
            raise SecurityError(f"it names the Python internal {name!r}")
    for value in [node.value for node in template.find_all(nodes.Const)]:
        if isinstance(value, str) and value.startswith("__") and value.endswith("__"):
            raise SecurityError(f"it names the Python internal {value!r}")
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise LimitError(f"it holds the number {value:,}; at most {MAX_NUMBER:,} is accepted")
    bodies = [loop.body for loop in template.find_all(nodes.For)]
    bodies += [macro.body for macro in template.find_all(nodes.Macro)]
    bodies += [call.body for call in template.find_all(nodes.CallBlock)]
    for body in bodies:
        body.insert(0, _check_call(None))
    _guard_assignments(template)
    return template


def _guard_assignments(node: nodes.Node) -> None:
    """After each `{% set %}`, check the value: strings that double in a loop stop at the limit."""
    for field, value in node.iter_fields():
        if not isinstance(value, list):
            continue
        guarded = []
        for child in value:
            guarded.append(child)
            if isinstance(child, (nodes.Assign, nodes.AssignBlock)) and isinstance(child.target, nodes.Name):
                guarded.append(_check_call(nodes.Name(child.target.name, "load")))
            elif isinstance(child, (nodes.Assign, nodes.AssignBlock)) and isinstance(child.target, nodes.NSRef):
                owner = nodes.Name(child.target.name, "load")
                guarded.append(_check_call(nodes.Getattr(owner, child.target.attr, "load")))
        setattr(node, field, guarded)
    for child in node.iter_child_nodes():
        _guard_assignments(child)


def _check_call(argument: nodes.Expr | None) -> nodes.ExprStmt:
    """A call of the guard as a statement; 'environment' is out of a template's reach."""
    arguments = [] if argument is None else [argument]
    statement = nodes.ExprStmt(nodes.Call(nodes.EnvironmentAttribute("guard_check"), arguments, [], None, None))
    statement.set_lineno(1)
    return statement


def _normalised(message: Message) -> dict[str, Any]:
    """A message as transformers hands it over: no null fields, reasoning under its usual names."""
    kept = {key: value for key, value in message.items() if value is not None}
    reasoning = next((kept[key] for key in REASONING_KEYS if key in kept), None)
    return kept if reasoning is None else {"thinking": reasoning, **kept, "reasoning_content": reasoning}


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as text; Jinja's own filter would escape HTML characters."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _new_dict(*pairs: Any, **items: Any) -> dict[Any, Any]:
    """`dict(...)` without the class, whose attributes templates should not see."""
    return dict(*pairs, **items)

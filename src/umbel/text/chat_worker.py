"""Renders chat templates in a process of its own, which the system ends when it takes too much time or memory.

A template comes from strangers. Jinja's sandbox keeps it from Python's internals, but one expression can ask for any
amount of work (`'x' * 10**9`, a sort, a format) inside compiled code that nothing in the same process can stop. So the
job never runs a template itself: `umbel.text.chat_process` starts this module and talks to it in lines of JSON.

In: an object with the source, what it may see and its limits, answered by `{"fault": null, "reads": names}`, the names
of the variables that it reads, or why it is refused. Then batches: a number n, and n lines with a conversation each
(`messages`, and beside them what the template is `given` and whether it `continues` the last message), answered by n
lines: a string or `{"fault": why}`, with the `field` that it cannot take.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any, BinaryIO

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = Mapping[str, Any]

REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
MARK = "MARK"
TAG = "CONTINUE_FINAL_MESSAGE_TAG "  # ends with a blank, which shows whether a template strips
ATTRIBUTE_FILTERS = {"attr", "groupby", "map", "max", "min", "rejectattr", "selectattr", "sort", "sum", "unique"}
MAX_FAULT_CHARS = 500
# A prompt may be so many times as long as its conversation, beyond what any template writes of its own: thousands of
# prompts are in memory together, so a limit for each alone would not do.
MAX_GROWTH = 64
MAX_OWN_CHARS = 2**18
_ADDRESS = re.compile(r" at 0x[0-9a-f]{4,}>")
_PRINTED_PART = re.compile(r"""['"]type['"]\s*:\s*['"]text['"]""")


def main() -> None:
    """Serve one template until the input ends."""
    stream, out = sys.stdin.buffer, sys.stdout.buffer
    start = json.loads(stream.readline())
    _set_limits(start["memory_bytes"])
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the timer's: ends the process, also within compiled code
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    try:
        signal.setitimer(signal.ITIMER_PROF, start["seconds"])
        template, fault = _open(start)
        _write(out, {"fault": fault, "reads": sorted(template.reads) if template else []})
        while template is not None and (head := stream.readline()):
            for line in [stream.readline() for _ in range(int(head))]:
                signal.setitimer(signal.ITIMER_PROF, start["seconds"])
                out.write(_answer(template, line, start["output_chars"]) + b"\n")
            out.flush()
    except MemoryError:
        os._exit(start["memory_code"])


def _set_limits(memory_bytes: int) -> None:
    """Limit the memory, and forbid to write files, start processes or dump core."""
    wanted = {"RLIMIT_AS": memory_bytes, "RLIMIT_NPROC": 0, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    for name, value in wanted.items():
        with contextlib.suppress(ValueError, OSError):  # a system may lack one, or set a lower one already
            resource.setrlimit(getattr(resource, name), (value, value))


def _open(start: Mapping[str, Any]) -> tuple[CompiledTemplate | None, str | None]:
    """The compiled template, or why it is refused."""
    try:
        environment = _Environment(datetime.fromisoformat(start["now"]))
        tree = environment.parse(start["source"])
        _refuse_internals(tree)
        reads = meta.find_undeclared_variables(tree)
        return CompiledTemplate(environment.from_string(tree), start["special_tokens"], reads), None
    except (jinja2.TemplateSyntaxError, SecurityError, RecursionError, ValueError, SyntaxError) as error:
        return None, _reason(error)


def _answer(template: CompiledTemplate, line: bytes, max_chars: int) -> bytes:
    try:
        conversation = json.loads(line)
        unread = template.unread(conversation)
        if unread:
            return json.dumps({"fault": "the model's chat template does not read it", "field": unread}).encode()
        text = template.render(conversation)
        max_chars = min(max_chars, MAX_OWN_CHARS + MAX_GROWTH * len(line))
        if len(text) > max_chars:
            return json.dumps({"fault": f"it wrote {len(text):,} characters: at most {max_chars:,}"}).encode()
        if any(found.encode() not in line for found in _ADDRESS.findall(text)):
            return json.dumps({"fault": "it printed an object by its address, which is another in every run"}).encode()
        return json.dumps(text).encode()
    except MemoryError:
        raise
    except Exception as error:  # templates fail in as many ways as Python does
        return json.dumps({"fault": _reason(error)}).encode()


def _reason(error: Exception) -> str:
    name = "" if type(error) is jinja2.TemplateError else f"{type(error).__name__}: "
    return (name + str(error))[:MAX_FAULT_CHARS]


def _write(out: BinaryIO, value: Any) -> None:
    out.write(json.dumps(value).encode() + b"\n")
    out.flush()


class CompiledTemplate:
    """A compiled template with the tokens that it sees, and the form in which it wants text."""

    def __init__(self, template: jinja2.Template, special_tokens: Mapping[str, str], reads: Set[str]):
        self.reads = reads
        self._render = template.render
        self._given = {"tools": None, "documents": None, "add_generation_prompt": True, **special_tokens}
        self._takes_text, self._takes_parts = _content_forms(self._try)
        gc.collect()  # what the trials left is not counted against the first conversation

    def unread(self, conversation: Mapping[str, Any]) -> str:
        """Which of a conversation's tools and documents the template would leave out, "" where none."""
        given = conversation.get("given", {})
        return next((name for name in ("tools", "documents") if given.get(name) and name not in self.reads), "")

    def render(self, conversation: Mapping[str, Any]) -> str:
        """The prompt of one conversation."""
        messages = [self._prepared(message) for message in conversation["messages"]]
        given = {**self._given, **conversation.get("given", {})}
        if not conversation.get("continues"):
            return self._render(messages=messages, **given)
        last = _last_text(messages[-1])
        return _cut_at_tag(self._render(messages=[*messages[:-1], _tagged(messages[-1])], **given), last)

    def _try(self, messages: Sequence[Message]) -> str:
        try:
            return self._render(messages=messages, **self._given)
        except (SecurityError, RecursionError, MemoryError):
            raise
        except Exception:  # it may refuse our conversation (say, for want of a system message)
            return ""

    def _prepared(self, message: Message) -> dict[str, Any]:
        """A message as transformers passes it: no null fields, reasoning under its usual names, text in a form that the
        template shows."""
        kept = {key: value for key, value in message.items() if value is not None}
        content = kept.get("content")
        if isinstance(content, list) and not self._takes_parts:
            kept["content"] = "\n".join(part["text"] for part in content)  # as vLLM joins them
        elif isinstance(content, str) and not self._takes_text:
            kept["content"] = [{"type": "text", "text": content}]
        reasoning = next((kept[key] for key in REASONING_KEYS if key in kept), None)
        return kept if reasoning is None else {"thinking": reasoning, **kept, "reasoning_content": reasoning}


def _last_text(message: Mapping[str, Any]) -> str:
    """The text that a message ends with. Raises ValueError where it has none."""
    content = message.get("content")
    texts = [part["text"] for part in content if "text" in part] if isinstance(content, list) else [content]
    if not texts or not isinstance(texts[-1], str):
        raise ValueError("continue_final_message: the last message has no text to go on with")
    return texts[-1]


def _tagged(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message with a tag behind its last text, where the prompt is to end."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": content + TAG}
    last = max(i for i, part in enumerate(content) if "text" in part)
    return {
        **message,
        "content": [{**part, "text": part["text"] + TAG} if i == last else part for i, part in enumerate(content)],
    }


def _cut_at_tag(text: str, last: str) -> str:
    """The prompt up to the tag, as transformers cuts it: without blanks where the template stripped the message."""
    if last.strip() not in text or TAG.strip() not in text:
        raise ValueError("continue_final_message: the chat template does not show the last message")
    at = text.rindex(TAG.strip())
    return text[:at] if text[at : at + len(TAG)] == TAG else text[:at].rstrip()


def _content_forms(render: Callable[[Sequence[Message]], str]) -> tuple[bool, bool]:
    """Whether a template shows content that is a text, and content that is a list of parts (not just as a list).

    Found by rendering both. A template that shows neither is assumed to want texts.
    """
    for before in ([], [("system", "Be brief.")]):
        of_text, of_parts = (
            render([{"role": role, "content": form(content)} for role, content in [*before, ("user", MARK)]])
            for form in (str, lambda text: [{"type": "text", "text": text}])
        )
        takes_parts = MARK in of_parts and not _PRINTED_PART.search(of_parts)
        if takes_parts or MARK in of_text:
            return MARK in of_text, takes_parts
    return True, False


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with the settings, filters and functions that transformers gives its templates, except random ones:
    a row's prompt is the same in every run."""

    def __init__(self, now: datetime):
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters["tojson"] = _to_json
        self.globals.update(raise_exception=_raise, strftime_now=now.strftime, dict=_new_dict, namespace=_Namespace)
        del self.globals["lipsum"], self.filters["random"]


class _Generation(Extension):
    """`{% generation %}` marks what the assistant wrote, for training; here it only renders its body."""

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


def _refuse_internals(tree: nodes.Template) -> None:
    """Raise SecurityError where a template names what the sandbox would refuse, before any of it runs."""
    names = [node.attr for node in tree.find_all(nodes.Getattr)]
    for node in tree.find_all((nodes.Getitem, nodes.Filter)):
        if isinstance(node, nodes.Getitem) or node.name in ATTRIBUTE_FILTERS:
            names += [const.value for const in node.find_all(nodes.Const) if isinstance(const.value, str)]
    for name in names:
        if name.startswith("__") and name.endswith("__") and name.strip("_"):
            raise SecurityError(f"it names the Python internal {name!r}")


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

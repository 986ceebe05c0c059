"""Renders chat messages with a model's own template, in a process of its own with limits of time, memory and size.

A template comes from the model directory, never from a request, and must give the same text as transformers'
`apply_chat_template`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from umbel.errors import InvalidRequest
from umbel.ir.chat import PLAIN_CHAT, Chat, ChatOptions, Message
from umbel.text.chat_process import TemplateLimits, TemplateProcess

MAX_TEMPLATE_CHARS = 2**20
_BATCH_ROWS = 256
_BATCH_BYTES = 4 * 2**20


class ChatTemplate:
    """One template; `special_tokens` (bos_token, eos_token, ...) and `now` are visible to it.

    Its process starts with the first conversation. A template that is refused fails every conversation; one that
    exceeds a limit fails only the current conversation.
    """

    def __init__(
        self, source: str, special_tokens: Mapping[str, str], now: datetime, limits: TemplateLimits | None = None
    ):
        self._start = {"source": source, "special_tokens": dict(special_tokens), "now": now.isoformat()}
        self._limits = limits or TemplateLimits()
        self._lock = threading.Lock()
        self._process: TemplateProcess | None = None
        self._refusal: str | None = None
        self._variables: set[str] = set()
        if len(source) > MAX_TEMPLATE_CHARS:
            self._refusal = f"it has {len(source):,} characters: at most {MAX_TEMPLATE_CHARS:,} are accepted"

    def render(self, messages: Sequence[Message], options: ChatOptions = PLAIN_CHAT) -> str:
        """The prompt text of one conversation; raises InvalidRequest if it fails."""
        (found,) = self.render_all([Chat(messages, options)])
        if isinstance(found, InvalidRequest):
            raise found
        return found

    def render_all(self, conversations: Sequence[Chat]) -> list[str | InvalidRequest]:
        """The prompt text of each conversation, or the error that it ends with."""
        lines = [_encoded(chat) for chat in conversations]
        with self._lock:
            self._variables.update(*(chat.options.variables for chat in conversations if chat.options.variables))
            answers = self._answers([line for line in lines if isinstance(line, bytes)])
            return [line if isinstance(line, InvalidRequest) else next(answers) for line in lines]

    @property
    def unread(self) -> str:
        """What to tell of variables that conversations gave and the template never reads; empty where it reads all."""
        reads = self._process.reads if self._process is not None else self._variables
        names = sorted(self._variables - set(reads))
        return f"chat_template_kwargs: the model's chat template never reads {', '.join(names)}" if names else ""

    def _answers(self, lines: Sequence[bytes]) -> Iterator[str | InvalidRequest]:
        """Ask in batches; after a conversation that ended the process, one by one.

        A conversation is at fault when it took too much time, or when it failed in a process that had answered nothing
        before: no row pays for what another left in memory.
        """
        done = alone = 0
        while done < len(lines):
            process = self._ready()
            if process is None:
                yield InvalidRequest(
                    "invalid_chat_template", f"the chat template was refused: {self._refusal}", "messages"
                )
                done += 1
                continue
            part, fresh = lines[done : done + (1 if done < alone else _batch_rows(lines, done))], not process.n_answers
            answers = process.ask(part)
            yield from map(_decoded, answers)
            done += len(answers)
            if len(answers) < len(part):
                reason = process.end()
                alone = max(alone, done + len(part) - len(answers))
                if len(part) == 1 and (fresh or process.timed_out):
                    yield _failure(reason)
                    done += 1

    def _ready(self) -> TemplateProcess | None:
        """The running process, a new one where there is none; None when the template is refused."""
        if self._refusal is None and (self._process is None or not self._process.usable):
            self._process = TemplateProcess(self._start, self._limits)
            self._refusal = self._process.fault
        return self._process if self._refusal is None else None


def _batch_rows(lines: Sequence[bytes], first: int) -> int:
    """How many lines from `first` on go together: at least one."""
    n_bytes = 0
    for n, line in enumerate(lines[first : first + _BATCH_ROWS]):
        n_bytes += len(line)
        if n_bytes > _BATCH_BYTES:
            return max(n, 1)
    return _BATCH_ROWS


def _encoded(chat: Chat) -> bytes | InvalidRequest:
    """A conversation as a line of JSON; values that JSON cannot hold appear by their type, as in transformers."""
    options = chat.options
    line: dict[str, Any] = {"messages": chat.messages}
    if options is not PLAIN_CHAT:
        given = {"tools": options.tools, "documents": options.documents, "add_generation_prompt": options.opens_answer}
        line |= {"given": {**options.variables, **given}, "continues": options.continues}
    try:
        return json.dumps(line, default=lambda value: f"<{type(value).__name__}>").encode()
    except (ValueError, TypeError, RecursionError) as error:
        return InvalidRequest("invalid_messages", f"messages that are no JSON ({type(error).__name__})", "messages")


def _decoded(answer: bytes) -> str | InvalidRequest:
    found: str | dict[str, str] = json.loads(answer)
    return found if isinstance(found, str) else _failure(found["fault"], found.get("field", "messages"))


def _failure(reason: str, field: str = "messages") -> InvalidRequest:
    """What a conversation ends with; `field` is the one that the template does not take, if not the messages."""
    reason = reason.encode("utf-8", "backslashreplace").decode()  # it may quote half of a surrogate pair
    if field != "messages":
        return InvalidRequest("unsupported_parameter", f"{field}: {reason}", field)
    return InvalidRequest("invalid_messages", f"the chat template failed: {reason}", "messages")

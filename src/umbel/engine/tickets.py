"""The tickets of a session and what is said of them: which are live, their keys, their texts so far, their events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from umbel.engine.intake import Batch, RequestOutput
from umbel.engine.loop import Tokens
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.text.detokenizer import AnswerStream
from umbel.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """What has happened to the prompt of a `ticket`.

    `kind` "tokens": `token_ids` of its completion number `sample` have come, and `text` is what they add to its text
    (characters that later tokens may still change come with those). `kind` "finished": `output` is the answer, the last
    event of the ticket.
    """

    ticket: int
    kind: str
    sample: int = 0
    token_ids: tuple[int, ...] = ()
    text: str = ""
    output: RequestOutput | None = None


@dataclass(slots=True)
class LiveRequest:
    """A ticket whose answer is not out yet: its parameters, the `text` of its prompt where that was given as one, and
    the `key` that its caller gave."""

    params: SamplingParams
    text: str | None = None
    key: int | None = None
    _texts: dict[int, AnswerStream] = field(default_factory=dict)  # by sample

    def read(self, event: Tokens, prompt: NDArray[np.int32], tokenizer: Tokenizer | None) -> str:
        """What new tokens add to the text of their completion."""
        if tokenizer is None:
            return ""
        if event.sample not in self._texts:
            self._texts[event.sample] = AnswerStream.of(tokenizer, self.params, prompt)
        stream, finish, ids = self._texts[event.sample], event.finish, event.token_ids
        if finish is None:
            return stream.push(ids, check=not event.given)
        at_token = finish.reason == "stop" and not isinstance(finish.stop, str)
        hidden = at_token and not self.params.include_stop_str_in_output
        return stream.push(ids[:-1] if hidden else ids) + stream.finish()


class Tickets:
    """Whole numbers from 0 on. `live` are the requests of those that have neither finished nor been cancelled."""

    def __init__(self) -> None:
        self.live: dict[int, LiveRequest] = {}
        self.count = 0
        self._key_of: dict[int, int] = {}  # keys given by callers -> ticket, of live ones
        self._cancelled: set[int] = set()

    def enter(self, batch: Batch, keys: Sequence[int | str] | None) -> int:
        """Give out a ticket for each prompt of a batch; returns the first. Raises UsageError, and gives out none, for a
        key that a live one has."""
        load, first = batch.workload, self.count
        places, numbers = load.keys.tolist(), load.noise_keys.tolist()
        for place, number in zip(places, numbers, strict=True) if keys is not None else ():
            if number in self._key_of:
                held = f"that of ticket {self._key_of[number]}, which has not finished"
                raise UsageError(f"key {keys[place]!r:.80} is {held}: two rows would draw alike")
        self.count += len(batch.texts)
        for place, number, params in zip(places, numbers, load.params, strict=True):
            key = None if keys is None else number
            self.live[first + place] = LiveRequest(params, batch.texts[place], key)
            if key is not None:
                self._key_of[key] = first + place
        for output in batch.refused:
            self.live[first + int(output.request_id)] = LiveRequest(SamplingParams(), output.prompt)
        return first

    def more(self, requests: Sequence[LiveRequest]) -> list[int]:
        """Give out a ticket for each of some requests without keys."""
        tickets = list(range(self.count, self.count + len(requests)))
        self.live |= zip(tickets, requests, strict=True)
        self.count += len(requests)
        return tickets

    def find(self, ticket: int) -> LiveRequest | None:
        """A live ticket's request; None when it has finished. Raises UsageError for one that was cancelled or taken
        out, or was never given out."""
        if ticket in self._cancelled:
            raise UsageError(f"ticket {ticket!r} is cancelled already")
        if isinstance(ticket, bool) or not isinstance(ticket, int) or not 0 <= ticket < self.count:
            raise UsageError(f"ticket {ticket!r}: this session has given out {self.count}, from 0 on")
        return self.live.get(ticket)

    def cancel(self, ticket: int) -> None:
        """A live ticket's answer is not wanted any more."""
        self.finish(ticket)
        self._cancelled.add(ticket)

    def finish(self, ticket: int) -> None:
        """A live ticket's answer is out."""
        request = self.live.pop(ticket)
        if request.key is not None:
            del self._key_of[request.key]

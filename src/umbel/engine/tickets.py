"""The tickets of a session and what is said of them: which are live, their keys, their texts so far, their events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from umbel.engine.events import Tokens
from umbel.engine.intake import Batch
from umbel.engine.request_output import RequestOutput
from umbel.errors import UsageError
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.text.detokenizer import AnswerStream
from umbel.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """What has happened to the prompt of a `ticket`.

    `kind` "tokens": `token_ids` of its completion number `sample` have come, and `text` is what they add to its text
    (characters that later tokens may still change come with those), `logprobs` their log-probabilities where the prompt
    asked for them. `kind` "finished": `output` is the answer, the last
    event of the ticket.
    """

    ticket: int
    kind: str
    sample: int = 0
    token_ids: tuple[int, ...] = ()
    text: str = ""
    output: RequestOutput | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(slots=True)
class LiveRequest:
    """A ticket whose answer is not out yet: its parameters, the `text` of its prompt where that was given as one, the
    `key` that its caller gave, and whether its answer is there (`done`), if not taken yet."""

    params: SamplingParams
    text: str | None = None
    key: int | None = None
    done: bool = False
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


@dataclass(slots=True)
class Quorum:
    """Tickets of which so many more are to finish; then the others are not wanted any more."""

    open: set[int]
    needed: int


class Tickets:
    """Whole numbers from 0 on. `live` are the requests of those that have neither finished nor been cancelled."""

    def __init__(self) -> None:
        self.live: dict[int, LiveRequest] = {}
        self.count = 0
        self._key_of: dict[int, int] = {}  # keys given by callers -> ticket, of live ones
        self._cancelled: set[int] = set()
        self._quorums: dict[int, Quorum] = {}

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

    def gather(self, tickets: Sequence[int], count: int) -> list[int]:
        """So many of some tickets are wanted; returns those to cancel already. Raises UsageError as `find`, and for
        more than there are."""
        found = {ticket: self.find(ticket) for ticket in tickets}
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(found):
            raise UsageError(f"quorum: {count!r} of {len(found)} tickets: must be from 1 to their number")
        open_ = {ticket for ticket, request in found.items() if request is not None and not request.done}
        quorum = Quorum(open_, count - (len(found) - len(open_)))
        self._quorums.update(dict.fromkeys(open_, quorum))
        return self._rest(quorum)

    def answer(self, ticket: int) -> list[int]:
        """A live ticket's answer is there; returns the tickets to cancel for that."""
        self.live[ticket].done = True
        quorum = self._quorums.pop(ticket, None)
        if quorum is None:
            return []
        quorum.open.discard(ticket)
        quorum.needed -= 1
        return self._rest(quorum)

    def _rest(self, quorum: Quorum) -> list[int]:
        return sorted(t for t in quorum.open if t in self.live) if quorum.needed <= 0 else []

    def cancel(self, ticket: int) -> None:
        """A live ticket's answer is not wanted any more."""
        self.finish(ticket)
        self._cancelled.add(ticket)

    def finish(self, ticket: int) -> None:
        """A live ticket's answer is out."""
        request = self.live.pop(ticket)
        self._quorums.pop(ticket, None)
        if request.key is not None:
            del self._key_of[request.key]


def checked_ids(token_ids: Sequence[int], width: int) -> list[int]:
    """Token ids to append, as whole numbers. Raises UsageError where there are none, or one is not in the model's
    vocabulary of `width`."""
    ids = [int(token) for token in token_ids]
    wrong = next((token for token in ids if not 0 <= token < width), None)
    if wrong is not None or not ids:
        raise UsageError(f"append: {'no token ids' if wrong is None else wrong}: give ids from 0 to {width - 1}")
    return ids

"""Turns token ids into text as they come, without half characters, and without text that a stop string would take
back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from umbel.ir.params import SamplingParams
from umbel.text.text_decoder import CleanUp
from umbel.text.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"
WINDOW = 16
"""Tokens after which decoding starts from a later one; a longer window costs time, a shorter one saves nothing."""


class TextStream:
    """Incremental decoding of one sequence: the deltas joined equal `TextDecoder.decode_answers`, to the character.

    Only generated ids are pushed. `context` (`TextDecoder.context_of`) is the token before them, whose text does not
    appear. Text is returned once nothing that follows can change it: an unfinished character is held back, so is a run
    of byte tokens (the library decodes such a run as one), and text that may still be cleaned up.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True, context: tuple[int, ...] = ()):
        self._decoder = tokenizer.decoder
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._clean_up = CleanUp() if self._decoder.cleans_up else None
        # The window's ids, how many characters of its text are out, and where a new window may begin (0: nowhere yet).
        self._ids = list(context)
        self._n_sent = self._decoder.n_context_chars(context) if context else 0
        self._cut = 0
        self._pending = ""

    @property
    def pending(self) -> str:
        """The text held back, as it reads now."""
        return self._pending if self._clean_up is None else self._clean_up.rest(self._pending)

    def push(self, ids: Sequence[int]) -> str:
        """Take new ids, return the text that has become final."""
        visible = [i for i in ids if i not in self._skipped and self._decoder.token_text(i) is not None]
        if not visible:
            return ""
        self._ids += visible
        text = self._decoder.decode_raw(self._ids)
        final = self._final(text)
        delta, self._n_sent = final[self._n_sent :], max(self._n_sent, len(final))
        self._pending = text[self._n_sent :]
        if delta and final == text:
            self._move_window()
        return delta if self._clean_up is None else self._clean_up.push(delta)

    def finish(self) -> str:
        """The text still held back, when no more ids come."""
        rest, self._pending, self._clean_up = self.pending, "", None
        return rest

    def _final(self, text: str) -> str:
        """The part of the window's text that no token can change any more."""
        if self._ids[-1] in self._decoder.byte_ids:
            return text[: self._n_sent]
        # Only the last character can be one that further bytes complete.
        return text[:-1] if text.endswith(REPLACEMENT) else text

    def _move_window(self) -> None:
        # All text is out and ends with a whole character, so what follows decodes the same behind any earlier such
        # point. At least one token that gave text stays in front: decoders treat the first token of a text differently.
        if self._cut and len(self._ids) > WINDOW:
            del self._ids[: self._cut]
            self._n_sent = len(self._decoder.decode_raw(self._ids))
        self._cut = len(self._ids)


class StopFinder:
    """Looks for stop strings in text that comes in pieces, however it is cut.

    The match that is complete first wins (of several that end together, the first in the list, as in vLLM), so the
    result depends on the text alone. Text that may be the beginning of a stop string is held back.
    """

    def __init__(self, stops: Sequence[str], *, include_stop: bool = False):
        if "" in stops:
            raise ValueError("a stop string must not be empty")
        self._stops = tuple(stops)
        self._include = include_stop
        self._held = ""
        self._n_passed = 0  # characters, from the beginning of what is held, in which no match counts
        self.stop: str | None = None

    def push(self, text: str, pending: str = "", *, check: bool = True) -> str:
        """Take new text, return what is safe to show; sets `stop` when one is found, and then takes no more.

        `pending` is text after it that may still change: stops are found in it, but it is given again later. With
        `check` off, matches that are complete by now do not count (they came before `min_tokens`).
        """
        if self.stop is not None:
            return ""
        text = self._held + text
        if not check:
            self._n_passed = len(text + pending)
        elif ends := self._ends(text + pending):
            end, place = min(ends)
            self.stop, self._held = self._stops[place], ""
            return (text + pending)[: end if self._include else end - len(self.stop)]
        n_shown = len(text) - self._beginning(text)
        self._held, self._n_passed = text[n_shown:], max(0, self._n_passed - n_shown)
        return text[:n_shown]

    def finish(self) -> str:
        """The text held back, when no more comes."""
        rest, self._held = self._held, ""
        return rest

    def _ends(self, text: str) -> list[tuple[int, int]]:
        """(end, place in the list) of the first match of each stop that ends after the text already returned."""
        starts = (max(0, self._n_passed - len(stop) + 1) for stop in self._stops)
        found = ((text.find(stop, start), stop) for stop, start in zip(self._stops, starts, strict=True))
        return [(at + len(stop), place) for place, (at, stop) in enumerate(found) if at >= 0]

    def _beginning(self, text: str) -> int:
        """Length of the longest suffix of `text` that is a proper prefix of a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1)
        for at in range(max(0, len(text) - longest + 1), len(text)):
            tail = text[at:]
            if any(len(stop) > len(tail) and stop.startswith(tail) for stop in self._stops):
                return len(tail)
        return 0


class AnswerStream:
    """The text of one answer as its tokens come, ended by stop strings.

    A stop string that is the text of a special token ends the answer at that token, though its text is not shown.
    `stop` is the stop string that ended it; `n_tokens` counts the tokens up to the one that completed the stop.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: Sequence[str] = (),
        *,
        include_stop: bool = False,
        skip_special_tokens: bool = True,
        min_tokens: int = 0,
        context: tuple[int, ...] = (),
    ):
        self._text = TextStream(tokenizer, skip_special_tokens=skip_special_tokens, context=context)
        self._finder = StopFinder(stops, include_stop=include_stop)
        special = tokenizer.decoder.special_texts if skip_special_tokens else {}
        self._stop_ids = {special[stop]: stop for stop in stops if stop in special}
        self._include = include_stop
        self._min_tokens = min_tokens
        self.n_tokens = 0

    @classmethod
    def of(cls, tokenizer: Tokenizer, params: SamplingParams, prompt: NDArray[np.int32]) -> AnswerStream:
        """The stream of a row's answer."""
        skip = params.skip_special_tokens
        return cls(
            tokenizer,
            params.stop,
            include_stop=params.include_stop_str_in_output,
            skip_special_tokens=skip,
            min_tokens=params.min_tokens,
            context=tokenizer.decoder.context_of(prompt, skip_special_tokens=skip),
        )

    @property
    def stop(self) -> str | None:
        """The stop string that ended the answer, None while there is none."""
        return self._finder.stop

    def push(self, ids: Sequence[int], *, check: bool = True) -> str:
        """Take new ids one by one until a stop is complete; return the text that is safe to show. With `check` off,
        stops that are complete with these ids do not count."""
        deltas = []
        for token_id in ids:
            if self.stop is not None:
                break
            self.n_tokens += 1
            counts = check and self.n_tokens > self._min_tokens
            if counts and token_id in self._stop_ids:
                deltas.append(self._end(self._stop_ids[token_id]))
            else:
                text = self._text.push((token_id,))
                deltas.append(self._finder.push(text, self._text.pending.rstrip(REPLACEMENT), check=counts))
        return "".join(deltas)

    def finish(self) -> str:
        """The rest of the text; a stop string may still be completed by a character that was held back."""
        if self.stop is not None:
            return ""
        rest = self._finder.push(self._text.finish(), check=self.n_tokens > self._min_tokens)
        return rest + self._finder.finish()

    def _end(self, stop: str) -> str:
        """The rest of the text before the special token whose text is a stop string."""
        rest = self.finish()
        if self.stop is None:
            self._finder.stop = stop
            rest += stop if self._include else ""
        return rest

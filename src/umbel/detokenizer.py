"""Turns token ids into text as they come: no half characters, no text that a stop string would take back."""

from __future__ import annotations

from collections.abc import Sequence

from umbel.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"
WINDOW = 16
"""Tokens after which decoding starts from a later one; a longer window costs time, a shorter one saves nothing."""


class TextStream:
    """Incremental decoding of one sequence: the deltas joined equal `tokenizer.decode` of all ids, to the character.

    Only generated ids are pushed, so prompt text never appears. Text is handed out once nothing that follows can change
    it: an unfinished character is held back, and so is a run of byte tokens (the library decodes such a run as one).
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True):
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        # The window's ids, how many characters of its text are out, and where a new window may begin (0: nowhere yet).
        self._ids: list[int] = []
        self._n_sent = 0
        self._cut = 0

    def push(self, ids: Sequence[int]) -> str:
        """Take new ids, give the text that has become final."""
        visible = [i for i in ids if i not in self._skipped and self._tokenizer.token_text(i) is not None]
        self._ids += visible
        if not visible or self._ids[-1] in self._tokenizer.byte_ids or self._tokenizer.cleans_up:
            return ""
        text = self._text(self._ids)
        # Only the last character can be one that further bytes complete.
        final = text[:-1] if text.endswith(REPLACEMENT) else text
        delta, self._n_sent = final[self._n_sent :], max(self._n_sent, len(final))
        if delta and final == text:
            self._move_window()
        return delta

    def finish(self) -> str:
        """The text still held back, now that no more ids come."""
        rest = self._text(self._ids)[self._n_sent :]
        self._n_sent += len(rest)
        return rest

    def _move_window(self) -> None:
        # All text is out and ends with a whole character, so what follows decodes the same behind any earlier such
        # point. At least one token that gave text stays in front: decoders treat the first token of a text differently.
        if self._cut and len(self._ids) > WINDOW:
            del self._ids[: self._cut]
            self._n_sent = len(self._text(self._ids))
        self._cut = len(self._ids)

    def _text(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)


class StopFinder:
    """Looks for stop strings in text that comes in pieces, however it is cut.

    The match that is complete first wins (of several that end together, the longest), so the result depends on the text
    alone. Text that may be the beginning of a stop string is held back.
    """

    def __init__(self, stops: Sequence[str], *, include_stop: bool = False):
        if "" in stops:
            raise ValueError("a stop string must not be empty")
        self._stops = tuple(stops)
        self._include = include_stop
        self._held = ""
        self.stop: str | None = None

    def push(self, text: str, *, check: bool = True) -> str:
        """Take new text, give what is safe to show; sets `stop` when one is found, and then takes no more.

        With `check` off, matches that this text completes do not count (it came before `min_tokens`).
        """
        if self.stop is not None:
            return ""
        text, n_before = self._held + text, len(self._held)
        ends = [] if not check else self._ends(text, n_before)
        if ends:
            end, _, self.stop = min(ends)
            self._held = ""
            return text[:end] if self._include else text[: end - len(self.stop)]
        n_held = self._beginning(text)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def finish(self) -> str:
        """The text held back, now that no more comes."""
        rest, self._held = self._held, ""
        return rest

    def _ends(self, text: str, n_before: int) -> list[tuple[int, int, str]]:
        """(end, -length, stop) of the first match of each stop that ends in new text."""
        found = ((text.find(stop, max(0, n_before - len(stop) + 1)), stop) for stop in self._stops)
        return [(at + len(stop), -len(stop), stop) for at, stop in found if at >= 0]

    def _beginning(self, text: str) -> int:
        """Length of the longest end of `text` that a stop string begins with (and is longer than)."""
        longest = max((len(stop) for stop in self._stops), default=1)
        for at in range(max(0, len(text) - longest + 1), len(text)):
            tail = text[at:]
            if any(len(stop) > len(tail) and stop.startswith(tail) for stop in self._stops):
                return len(tail)
        return 0


class AnswerStream:
    """The text of one answer as its tokens come, ended by stop strings.

    `stop` is the stop string that ended it, `n_tokens` the tokens that count: up to the one that completed the stop.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: Sequence[str] = (),
        *,
        include_stop: bool = False,
        skip_special_tokens: bool = True,
        min_tokens: int = 0,
    ):
        self._text = TextStream(tokenizer, skip_special_tokens=skip_special_tokens)
        self._finder = StopFinder(stops, include_stop=include_stop)
        self._min_tokens = min_tokens
        self.n_tokens = 0

    @property
    def stop(self) -> str | None:
        """The stop string that ended the answer, None while there is none."""
        return self._finder.stop

    def push(self, ids: Sequence[int]) -> str:
        """Take new ids one by one until a stop is complete; give the text that is safe to show."""
        deltas = []
        for token_id in ids:
            if self.stop is not None:
                break
            self.n_tokens += 1
            deltas.append(self._finder.push(self._text.push((token_id,)), check=self.n_tokens > self._min_tokens))
        return "".join(deltas)

    def finish(self) -> str:
        """The rest of the text; a stop string may still be completed by a character that was held back."""
        if self.stop is not None:
            return ""
        rest = self._finder.push(self._text.finish(), check=self.n_tokens > self._min_tokens)
        return rest + self._finder.finish()

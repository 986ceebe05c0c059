"""How far a call or a load is, in one line: on a terminal, in a notebook, or by a progress bar of the caller's."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from umbel.ir.load_count import LoadCount
from umbel.ir.report import Left, Stats
from umbel.plan.explain.text import duration

PATIENCE, LIVE, PLAIN = 2.0, 0.25, 5.0  # seconds until something is shown, and between two of its states
Tell = Callable[[], object]
"""Called when one more prompt is answered."""


class Watched(Protocol):
    """What knows how far its rows are."""

    def stats(self) -> Stats:
        """The totals so far."""

    def left(self) -> Left:
        """What the rows that run have left to do."""


@contextmanager
def progress_line(asked: bool | Callable[..., Any] | None, total: int, engine: Watched) -> Iterator[Tell]:
    """Show progress while the block runs: never (False), where a person looks on and it takes longer than two seconds
    (None), also in logs (True), or by a bar that is made as tqdm makes one."""
    if callable(asked):
        bar = asked(total=total, desc="prompts")
        try:
            yield lambda: bar.update(1)
        finally:
            bar.close()
        return
    line = _Line(total, engine)
    with _shown(line, asked):
        yield line.tell


@contextmanager
def loading_line(asked: bool | Callable[..., Any] | None) -> Iterator[LoadCount]:
    """Show how much of a model is there that the block loads and counts; `asked` as of `progress_line`."""
    count = LoadCount()
    if not callable(asked):
        with _shown(_LoadLine(count), asked):
            yield count
        return
    bar, told = asked(total=1.0, desc="loading the model"), 0.0

    def tell() -> None:
        nonlocal told
        share = count.share() or 0.0
        bar.update(share - told)
        told = share

    try:
        with every(LIVE, tell):
            yield count
        tell()
    finally:
        bar.close()


@contextmanager
def _shown(line: _Line | _LoadLine, asked: bool | None) -> Iterator[None]:
    """Show a line that changes, where it can be seen."""
    place = None if asked is False else _place(logs=asked is True)
    if place is None:
        yield
        return
    with every(LIVE if place is not _print_line else PLAIN, lambda: place(line.text()) if line.due() else None):
        yield
    if line.due() or asked is True:
        place(line.text())
    place("") if place is _write_over else None


@contextmanager
def every(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Call `act` again and again in a thread that ends before the block does: one that outlived it could hold the model
    while the interpreter shuts down. It ends early when the terminal is gone."""
    over = threading.Event()

    def work() -> None:
        with suppress(OSError):
            while not over.wait(seconds):
                act()

    thread = threading.Thread(target=work, name="umbel-progress")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Line:
    """The state of a call as text."""

    def __init__(self, total: int, engine: Watched):
        self.total, self.engine, self.done = total, engine, 0
        self.began, self.tokens = time.monotonic(), engine.stats().output_tokens

    def tell(self) -> None:
        self.done += 1

    def due(self) -> bool:
        return time.monotonic() - self.began >= PATIENCE

    def text(self) -> str:
        elapsed, left = time.monotonic() - self.began, self.engine.left().seconds
        tokens = self.engine.stats().output_tokens - self.tokens
        parts = [f"{self.done:,}/{self.total:,} prompts", f"{tokens:,} tokens", duration(round(elapsed, 1))]
        if left and self.done < self.total:
            parts.append(f"about {duration(round(left) or 1)} left")
        return " · ".join(parts)


class _LoadLine:
    """The state of a model that is loaded as text."""

    def __init__(self, count: LoadCount):
        self._count, self._began = count, time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._began >= PATIENCE

    def text(self) -> str:
        return f"loading the model, {self._count.share() or 0.0:.0%} · {duration(time.monotonic() - self._began)}"


def _place(*, logs: bool) -> Callable[[str], object] | None:
    """Where a line can be shown."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and hasattr(shell, "kernel"):
        from IPython.display import display

        shown = display({"text/plain": ""}, raw=True, display_id=True)
        return lambda text: shown.update({"text/plain": text}, raw=True)
    if sys.stderr.isatty():
        return _write_over
    return _print_line if logs else None


def _write_over(text: str) -> None:
    with suppress(OSError):
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)


def _print_line(text: str) -> None:
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)

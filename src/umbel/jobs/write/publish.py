"""The files that a job ends with: all rows in one, or answers in one and errors in another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umbel.jobs.failpoints import FailHook
from umbel.jobs.paths import JobPaths
from umbel.jobs.store import JobStore
from umbel.jobs.write.formats.named import format_of
from umbel.jobs.write.placing import SEALED, OutputPlace
from umbel.jobs.write.sink import NO_KINDS, remove_part, remove_parts, write_output

Rows = Callable[[], Iterator[tuple[int, bytes]]]
"""Gives the numbers and lines of all rows, each time that it is called."""


def check_files(paths: JobPaths, output: Path, errors: Path | None) -> None:
    """Raise UsageError when an output has the name of no format, or the file of errors is another one of the job."""
    format_of(output)
    if errors is not None:
        format_of(errors, "--errors")
        paths.with_extra("--errors", errors, b"")


@dataclass(frozen=True, slots=True)
class Publisher:
    """Writes the output of a job and puts it into place.

    `errors`: where the rows without an answer go; None: into the output.
    `order`: "input" or "finish".
    `kinds`: gives the Arrow types of columns that had one in the input.
    """

    store: JobStore
    output: Path
    errors: Path | None
    order: str
    at: FailHook
    kinds: Callable[[], Mapping[str, Any]]

    def clear(self) -> None:
        """Remove what earlier runs that were killed have left half written."""
        for place in self._places():
            remove_parts(place.path)

    def check(self, *, fresh: bool) -> bool:
        """Whether the files are there as this job wrote them, with every row, in the wanted order and parts. Raises
        UsageError when one is someone else's."""
        there = [place.check(self.store, fresh=fresh) for place in self._places()]
        sealed = self.store.get(SEALED)
        if not all(there) or sealed is None or sealed.get("partial"):
            return False
        return bool(sealed["order"] == self.order and sealed.get("split", False) == (self.errors is not None))

    def write(
        self, rows: Rows, shield: AbstractContextManager[None], settle: Callable[[], None], *, partial: bool
    ) -> None:
        """Write the files and put them into place, the output last; `settle` is called when it is there."""
        places, parts = self._places(), list[Path]()
        try:
            for place, lines in zip(places, self._lines(rows), strict=True):
                kinds = self.kinds() if format_of(place.path).is_typed else NO_KINDS  # the input may be gone by now
                parts.append(write_output(place.path, self.store.path, lines, self.at, kinds))
            with shield:
                self._place(places, parts, partial=partial)
                settle()
        finally:
            for part in parts:
                remove_part(part)  # which has another name once it is in place

    def _places(self) -> list[OutputPlace]:
        errors = [] if self.errors is None else [OutputPlace.of_errors(self.errors)]
        return [*errors, OutputPlace(self.output)]

    def _lines(self, rows: Rows) -> list[Callable[[], Iterator[bytes]]]:
        if self.errors is None:
            return [lambda: (line for _, line in rows())]
        answered = self.store.answered()

        def of(*, good: bool) -> Iterator[bytes]:
            for row, line in rows():
                if (row < len(answered) and bool(answered[row])) == good:
                    yield line

        return [lambda: of(good=False), lambda: of(good=True)]

    def _place(self, places: list[OutputPlace], parts: list[Path], *, partial: bool) -> None:
        facts = {"order": self.order, "partial": partial, "split": self.errors is not None}
        replaced = [place.seal(self.store, part, self.at, **facts) for place, part in zip(places, parts, strict=True)]
        for place, part, replace in zip(places, parts, replaced, strict=True):
            place.put(self.store, part, self.at, replace=replace)
        self.at("store.finish.before")
        self.store.put(finished=not partial, ended="budget" if partial else "complete")
        self.at("store.finish.after")

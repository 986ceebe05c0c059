"""Several input files as one input: rows numbered through, ids unique across files, columns united."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from umbel.errors import EmptyInput, UsageError
from umbel.jobs.read.changes import HashedInput
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.inputs import InputFile, title_of
from umbel.jobs.read.records import InputRow, ReadNotes, ReadOptions
from umbel.jobs.read.seen_ids import SeenIds
from umbel.jobs.read.source import BATCH_ROWS, Source


@dataclass(slots=True)
class SourceFiles:
    """Two or more input files, each row of which has the name of its file in the column `file`. Read as a Source."""

    files: tuple[Source, ...]
    name: str

    @property
    def options(self) -> ReadOptions:
        """How all of them are read."""
        return self.files[0].options

    def check(self) -> bool:
        """As of a Source, of all files."""
        return all([file.check() for file in self.files])  # each of them, as each notes what it has seen

    def rows(self) -> Iterator[InputRow]:
        """Every row in order, repeated ids made errors. Raises EmptyInput, InputError or UsageError."""
        for batch in self.batches():
            yield from batch

    def batches(self, size: int = BATCH_ROWS) -> Iterator[list[InputRow]]:
        """The rows in lists of up to `size`, all of one file. A file may be empty, but not all of them."""
        self.parsers()
        ids, first = SeenIds([file.file or "" for file in self.files]), 0
        for number, file in enumerate(self.files):
            for batch in file.parts(size, first):
                first += len(batch)
                yield ids.check(batch, number)
        if not first:
            raise EmptyInput(f"empty_file: none of the {len(self.files):,} input files has rows")

    def room_behind(self, n_bytes: int) -> int:
        """How much of so many bytes all rows leave, counted after unpacking; below 0 when they take more."""
        for file in self.files:
            if n_bytes >= 0:
                n_bytes = file.room_behind(n_bytes)
        return n_bytes

    @property
    def seekable(self) -> bool:
        """Whether single rows can be read alone."""
        return all(file.seekable for file in self.files)

    def parsers(self) -> list[RowParser]:
        """The parser of each file. Raises UsageError when one cannot be opened, or when some have OpenAI batch lines
        and others plain rows, as one output cannot have both."""
        parsers = [file.parser() for file in self.files]
        openai = [parser.endpoint is not None for parser in parsers]
        if any(openai) and not all(openai):
            one, other = self.files[openai.index(True)].file, self.files[openai.index(False)].file
            raise UsageError(
                f"input {one} has OpenAI batch lines and {other} plain rows, whose answers are not alike: run them as "
                "two jobs"
            )
        return parsers

    def kinds(self) -> Mapping[str, Any]:
        """The Arrow types of the columns that come back, where all files have types. Raises UsageError for a column
        whose types in two files have none in common."""
        if not all(file.typed for file in self.files):
            return {}
        from umbel.jobs.read.formats.returned import common_kind

        found: dict[str, tuple[Any, str | None]] = {}
        for file in self.files:
            for name, kind in file.kinds().items():
                before, where = found.get(name, (kind, file.file))
                common = common_kind(before, kind)
                if common is None:
                    raise UsageError(
                        f"column {name!r} is {before} in {where} and {kind} in {file.file}: cast one of them, leave "
                        "the column out with --keep, or take an output without types (.jsonl, .csv)"
                    )
                found[name] = (common, where)
        return {name: kind for name, (kind, _) in found.items()}


def open_source(
    files: Sequence[InputFile], options: ReadOptions, notes: ReadNotes, watched: Sequence[HashedInput] = ()
) -> Source | SourceFiles:
    """An input of one file or of several, ready to be read; `watched` are the files as they were hashed, if they
    were."""
    if len(files) == 1:
        return Source(files[0].path, options, notes, *watched)
    watches = list(watched) or [None] * len(files)
    sources = [Source(file.path, options, notes, watch, file.name) for file, watch in zip(files, watches, strict=True)]
    return SourceFiles(tuple(sources), title_of([file.name for file in files]))

"""The files that a job reads, each with the name that its rows and messages call it by."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from umbel.config import readable
from umbel.errors import UsageError
from umbel.ir.limits import shown
from umbel.jobs.remote import is_uri


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of a job's input: where it lies, and the name that it was given by."""

    path: Path
    name: str

    @classmethod
    def of(cls, path: Path) -> InputFile:
        """A file under its own name."""
        return cls(path, readable(path))


Inputs = tuple[InputFile, ...]
"""The files of an input, in the order in which their rows are numbered."""


def title_of(names: Sequence[str]) -> str:
    """Files as messages name them: the first, and how many more."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


def expanded(given: Iterable[str], outputs: Iterable[Path] = ()) -> list[str]:
    """The names of the files that names and patterns (*, ?, [...], **) stand for, those of a pattern sorted; file:// is
    left out, other URIs are left as they are. A pattern leaves out the files that the job itself writes, its `outputs`
    and their stores.

    Raises UsageError for a pattern that no file matches, and for a file that is given twice.
    """
    own = [os.path.abspath(path) for path in outputs]
    found = [name for one in given for name in _matches(one.removeprefix("file://"), own)]
    seen = dict[str, str]()
    for name in found:
        if (first := seen.get(path := os.path.abspath(name))) is not None:
            raise UsageError(f"input {shown(name)}: is given twice, first as {shown(first)}; give each file once")
        seen[path] = name
    return found


def _matches(name: str, own: Sequence[str]) -> Iterator[str]:
    if is_uri(name) or not glob.has_magic(name) or "\0" in name or os.path.lexists(name):
        yield name
        return
    files = [path for path in sorted(glob.glob(name, recursive=True)) if os.path.isfile(path)]
    found = [path for path in files if not any(_belongs(os.path.abspath(path), output) for output in own)]
    if not found:
        raise UsageError(f"input {shown(name)}: no file matches")
    yield from found


def _belongs(path: str, output: str) -> bool:
    return path == output or path.startswith(f"{output}.umbel")

"""The files that belong to a job, and the checks that keep them from overwriting one another or other files."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from umbel.errors import DiskFull, StoreDamaged, UsageError
from umbel.jobs.store import JobStore
from umbel.jobs.store_file import store_files
from umbel.jobs.write.sink import is_part

_ROOM = 15  # bytes that the longest name beside the output has more than it: `.OUT.01234567.part`
_STREAMS = re.compile(r"/dev|/proc/.+")  # directories whose entries stand for streams, whatever these lead to
_KINDS = MappingProxyType(
    {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFLNK: "a link",
    }
)
_FLOWING = frozenset({"a pipe", "a device"})


@dataclass(frozen=True, slots=True)
class JobPaths:
    """The files of a job; `output` with links followed, `extras` the other files that are written, by the option that
    asks for them.

    The store and the parts lie beside the file that the output names, so that they are found through any link to it.
    """

    inputs: tuple[Path, ...]
    output: Path | None
    extras: tuple[tuple[str, Path], ...] = ()

    @property
    def target(self) -> Path:
        """The output of a job, which must have one."""
        assert self.output is not None
        return self.output

    @property
    def store(self) -> Path:
        """The job's store."""
        return store_path(self.target)

    def named(self) -> Iterator[tuple[str, Path]]:
        """The files with what each of them is."""
        for path in self.inputs:
            yield "the input", path
        yield from self._made()
        for option, path in self.extras:
            yield f"the file of {option}", path

    def with_extra(self, option: str, path: Path, begins: bytes) -> JobPaths:
        """The job with one more file to write, which begins with `begins`. Raises UsageError when the file is one of
        the job's, cannot be written, or exists and begins differently, so is not an earlier one of the same kind."""
        if found := self._taken(path, self.named()):
            raise UsageError(f"{option} {path}: is {found} of this job; choose another name")
        try:
            kind = kind_of(path)
            if kind == "a directory":
                raise UsageError(f"{option} {path}: is a directory; give a file name")
            if not follow(path).parent.is_dir():
                raise UsageError(f"{option} {path}: there is no directory {follow(path).parent}")
            if not kind and not is_stream(path) and path.exists() and _head(path, len(begins)) not in (b"", begins):
                raise UsageError(f"{option} {path}: exists and was not written by {option}; choose another name")
        except (OSError, ValueError) as error:
            raise UsageError(f"{option} {path}: {getattr(error, 'strerror', None) or error}") from None
        return replace(self, extras=(*self.extras, (option, path)))

    def check_input(self, path: Path) -> None:
        """Raise UsageError when a file of the input is one that this job would write."""
        if found := self._taken(path, self._made()):
            raise UsageError(
                f"output {self.output}: would overwrite the input {path}, which is {found}; choose another name"
            )

    def _made(self) -> Iterator[tuple[str, Path]]:
        """The files that the job writes for itself."""
        if self.output is not None:
            yield "the output", self.output
            yield "the growing output", growing_path(self.output)
            for path in store_files(self.store):
                yield "the store", path

    def _taken(self, path: Path, named: Iterator[tuple[str, Path]]) -> str:
        """The name of the file in `named` that a path leads to, '' for none."""
        if self.output is not None and is_part(self.output, Path(os.path.realpath(path))):
            return "the unfinished output"
        return next((name for name, other in named if same_file(path, other)), "")


def _head(path: Path, n_bytes: int) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(n_bytes)


def store_path(output: Path) -> Path:
    """The job store of an output: the name of its file followed by `.umbel`, in the same directory."""
    target = follow(output)
    return target.with_name(target.name + ".umbel")


def growing_path(output: Path) -> Path:
    """Where rows go as they finish, in the order of finishing: beside the output."""
    target = follow(output)
    return target.with_name(target.name + ".part")


def follow(path: Path) -> Path:
    """The file that a path names: where a link leads, whether or not something is there yet."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


def check_paths(sources: Sequence[Path], output: Path) -> JobPaths:
    """The files of a job whose output may be written without touching the input, or anything else. Raises
    UsageError."""
    name = f"output {output}"
    try:
        paths = JobPaths(tuple(sources), _target(output))
        for source in sources:
            name = f"input {source}"
            paths.check_input(source)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: {getattr(error, 'strerror', None) or error}") from None
    return paths


def _target(output: Path) -> Path:
    """The regular file that an output names, links followed. Raises UsageError when it cannot be one."""
    kind = kind_of(output)
    if not output.name or kind == "a directory":
        raise UsageError(f"output {output}: is a directory; give a file name")
    if kind or output.name == "-" or is_stream(output):
        raise UsageError(
            f"output {output}: is {kind or 'a stream'}; answers go to a file, which appears when it is complete: give "
            "the name of one"
        )
    target = follow(output)
    if not target.parent.is_dir():
        raise UsageError(f"output {output}: there is no directory {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise UsageError(f"output {output}: no permission to write in {target.parent}")
    most = os.pathconf(target.parent, "PC_NAME_MAX") - _ROOM
    if (n_bytes := len(os.fsencode(target.name))) > most:
        raise UsageError(
            f"output {output}: its name has {n_bytes} bytes, and can have {most} here, as files with longer names lie "
            "beside it; choose a shorter name"
        )
    return target


def is_stream(path: Path) -> bool:
    """Whether a name stands for an open stream, such as /dev/stdout, whatever it leads to."""
    return _STREAMS.fullmatch(os.path.realpath(path.parent)) is not None


def is_streamed(output: Path) -> bool:
    """Whether an output is standard output, a pipe or a device, to which answers go as they come."""
    try:
        return str(output) == "-" or is_stream(output) or kind_of(output) in _FLOWING
    except (OSError, ValueError):
        return False  # what is wrong with the name is said where files are checked


def kind_of(path: Path, *, links: bool = False) -> str:
    """What lies at a path, in words; '' for a regular file or nothing. A link counts as one only with `links`."""
    try:
        mode = path.lstat().st_mode if links else path.stat().st_mode
    except FileNotFoundError:
        return ""
    return _KINDS.get(stat.S_IFMT(mode), "")


def same_file(one: Path, other: Path) -> bool:
    """True when both names lead to one file, also through links, also when it does not exist yet."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def clear_store(path: Path) -> None:
    """Make room for a new store, whatever is in its place: damaged, a pipe, a link (its target is not touched).

    Raises StoreBusy while a process works on it, StoreMismatch for the database of another program, UsageError for what
    holds more than a store could.
    """
    if path.exists():
        with suppress(StoreDamaged, DiskFull):  # what cannot be opened can still be removed
            JobStore(path).close()
    remove_store(path)


def remove_store(path: Path) -> None:
    """Delete a job store and the files that SQLite keeps beside it."""
    for file in store_files(path):
        try:
            kind = kind_of(file, links=True)
            if kind == "a device":
                raise UsageError(f"{file}: is a device; move it away, or choose another output")
            if kind == "a directory":
                file.rmdir()
            else:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(
                f"{file}: cannot be removed ({error.strerror}); move it away, or choose another output"
            ) from None

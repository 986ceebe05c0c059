"""Pipes as input: a job reads its input more than once, so a pipe is first copied into a file."""

from __future__ import annotations

import os
import re
import select
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from umbel.errors import DiskFull, UmbelError, UsageError
from umbel.jobs.read.formats.foreign import check_file
from umbel.jobs.read.inputs import InputFile, Inputs
from umbel.jobs.remote import fetched, is_uri, matches, public_name

WRITER_SECONDS = 10.0
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_BLOCK_BYTES = 2**20


@contextmanager
def opened(names: Sequence[str], directory: Path | None = None) -> Iterator[Inputs]:
    """The files of an input, each as `readable` gives it; those under URIs are copied, their patterns resolved. Errors
    call each by its name, whatever its copy is called."""
    with ExitStack() as stack:
        files = list[InputFile]()
        try:
            for name in names:
                for one in matches(name) if is_uri(name) else [name]:
                    there = fetched(one, directory) if is_uri(one) else readable(Path(one), directory)
                    files.append(InputFile(stack.enter_context(there), public_name(one)))
            yield tuple(files)
        except UmbelError as error:
            error.args = tuple(_by_name(text, files) for text in error.args)
            raise


def _by_name(text: object, files: Sequence[InputFile]) -> object:
    """A message with the names of copies replaced by those of what was copied."""
    for file in files if isinstance(text, str) else ():
        text = str(text).replace(str(file.path), file.name)
    return text


@contextmanager
def readable(source: Path, directory: Path | None = None) -> Iterator[Path]:
    """The input as a file: itself, or for a pipe ("-", /dev/stdin, <(...), a FIFO) a copy of its contents.

    The copy lies in `directory` (default: that for temporary files), can be read by its owner alone, and is removed at
    the end. "-" and the shell's pipes give JSON lines, plain or gzip, or Parquet; the format of a FIFO follows from its
    name, as for files. Raises UsageError for an input that cannot be read so, DiskFull.
    """
    pipe = open_pipe(source)
    if pipe is None:
        check_file(source)
        yield source
        return
    with copied(pipe, source, directory) as copy:
        yield copy


@contextmanager
def copied(pipe: BinaryIO, source: Path, directory: Path | None = None) -> Iterator[Path]:
    """The rest of an open pipe as a file, as `readable` gives it."""
    with pipe:
        copy = _copy(pipe, source, directory if directory is not None and directory.is_dir() else None)
    try:
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def open_pipe(source: Path) -> BinaryIO | None:
    """The pipe that a name stands for, open; None when it is anything else."""
    name = str(source)
    found = _DESCRIPTOR.fullmatch(name)
    number = 0 if name in ("-", "/dev/stdin") else int(found[1]) if found else None
    try:
        mode = os.stat(source if number is None else number).st_mode
    except (OSError, ValueError):
        if name == "-":
            raise UsageError("input -: standard input is closed") from None
        return None
    if name == "-" and stat.S_ISCHR(mode):
        raise UsageError("input -: standard input is a terminal or a device; pipe rows into it, or give a file")
    if number is not None and (name == "-" or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return os.fdopen(os.dup(number), "rb")
    return _open_fifo(source) if stat.S_ISFIFO(mode) else None


def _open_fifo(source: Path) -> BinaryIO:
    """A FIFO that has a writer, opened without waiting for one."""
    try:
        number = os.open(source, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"input {source}: {error.strerror}") from None
    waiting = select.poll()
    waiting.register(number, select.POLLIN | select.POLLHUP)
    if not waiting.poll(WRITER_SECONDS * 1_000):
        os.close(number)
        raise UsageError(f"input {source}: is a pipe into which nothing was written for {WRITER_SECONDS:.0f} s")
    os.set_blocking(number, True)
    return os.fdopen(number, "rb")


def _copy(pipe: BinaryIO, source: Path, directory: Path | None) -> Path:
    head = pipe.read(4)
    suffix = "".join(source.suffixes[-2:]) or (".parquet" if head == b"PAR1" else ".jsonl")
    number, name = tempfile.mkstemp(suffix, ".umbel-input-", directory)
    copy = Path(name)
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write(head)
            shutil.copyfileobj(pipe, stream, _BLOCK_BYTES)
    except BaseException as error:
        copy.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DiskFull(f"input {source}: no copy in {copy.parent}: {error.strerror}") from error
        raise
    return copy

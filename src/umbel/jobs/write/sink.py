"""Writes an output file beside its place and renames it into place."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from umbel.errors import DiskFull
from umbel.jobs.failpoints import FailHook
from umbel.jobs.store_file import kept_in
from umbel.jobs.write.formats.blocks import blocks
from umbel.jobs.write.formats.encoder import Lines, encoder
from umbel.jobs.write.formats.named import format_of

NO_KINDS: Mapping[str, Any] = MappingProxyType({})


def write_output(path: Path, store: Path, lines: Lines, at: FailHook, kinds: Mapping[str, Any] = NO_KINDS) -> Path:
    """Write all lines to a new file beside `path` and to disk, in the format of its name; returns it, ready for
    `place_output`. `kinds` are the Arrow types of columns that had one in the input.

    Raises DiskFull with the path and the bytes written; the new file is removed then. `store` has the results.
    """
    part, form = part_path(path), format_of(path)
    written = 0
    try:
        at("output.open.before")
        with open_new(part) as stream:
            at("output.open.after")
            with encoder(stream, form, lines, kinds) as put:
                for block in blocks(lines()):
                    at("output.write.before")
                    put(block)
                    at("output.write.after")
                    written = stream.tell()
            stream.flush()
            at("output.fsync.before")
            os.fsync(stream.fileno())
            at("output.fsync.after")
    except OSError as error:
        remove_part(part)
        why = f"{path}: writing failed after {written:,} bytes ({error.strerror or error})"
        raise DiskFull(f"{why}; {kept_in(store)}") from error
    except BaseException:
        remove_part(part)
        raise
    return part


def place_output(part: Path, path: Path, store: Path, at: FailHook, *, replace: bool) -> None:
    """Move the finished file into place durably. Only with `replace` may it replace an existing file.

    Raises FileExistsError where there is one, DiskFull when it cannot be done.
    """
    try:
        at("output.rename.before")
        if replace:
            os.replace(part, path)
        else:
            _place_new(part, path)
        at("output.rename.after")
        at("output.fsync_dir.before")
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        at("output.fsync_dir.after")
    except FileExistsError:
        raise
    except OSError as error:
        why = f"{path}: cannot be put into place ({error.strerror or error})"
        raise DiskFull(f"{why}; {kept_in(store)}") from error


def _place_new(part: Path, path: Path) -> None:
    """Give the part its name unless the name is taken. Raises FileExistsError."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        os.replace(part, path)
    else:
        os.unlink(part)


def part_path(path: Path) -> Path:
    """A new, unpredictable name beside `path`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def is_part(path: Path, other: Path) -> bool:
    """Whether `other` is named like a part of the output `path`, in the same directory."""
    named = re.fullmatch(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.part", other.name)
    return named is not None and os.path.realpath(other.parent) == os.path.realpath(path.parent)


def open_new(path: Path) -> BinaryIO:
    """Create a file for writing, with the usual permissions. Raises FileExistsError when anything is there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def remove_parts(path: Path) -> None:
    """Delete the parts of runs of this job that were killed while they wrote the output; the caller holds its store."""
    with suppress(OSError):
        for entry in list(os.scandir(path.parent)):
            if entry.is_file(follow_symlinks=False) and is_part(path, path.parent / entry.name):
                remove_part(path.parent / entry.name)


def remove_part(part: Path) -> None:
    """Delete a part, if possible."""
    with suppress(OSError):
        part.unlink(missing_ok=True)


def digest_file(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256") if hasattr(hashlib, "file_digest") else _sha256(stream)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _sha256(stream: BinaryIO) -> Any:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest

"""Files under URIs that fsspec knows (s3://, hf://, https://, memory:// ...): their names, and copies to read."""

from __future__ import annotations

import glob
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from umbel.errors import DiskFull, InputError, UsageError

_URI = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://")
_PACKAGES = MappingProxyType(
    {
        **dict.fromkeys(("s3", "s3a"), "s3fs"),
        **dict.fromkeys(("gs", "gcs"), "gcsfs"),
        **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
        **dict.fromkeys(("http", "https"), "aiohttp"),
    }
)
READ_ONLY = frozenset({"http", "https"})
_QUERY = re.compile(r"[?#].*", re.DOTALL)


def is_uri(name: str) -> bool:
    """Whether a name is a URI, of a file that does not lie on this machine as a path."""
    return _URI.match(name) is not None


def scheme_of(uri: str) -> str:
    """What a URI begins with, before ://."""
    found = _URI.match(uri)
    assert found is not None
    return found[1].lower()


def file_name(uri: str) -> str:
    """The name of the file that a URI leads to, '' where it leads to none."""
    return public_name(uri).partition("://")[2].partition("/")[2].rpartition("/")[2]


def public_name(name: str) -> str:
    """A name as rows and messages show it: a URI without what may be secret, its query and its user."""
    if not is_uri(name):
        return name
    scheme, _, rest = name.partition("://")
    host, slash, path = (_QUERY.sub("", rest) if scheme_of(name) in READ_ONLY else rest).partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def matches(uri: str) -> list[str]:
    """The URIs that a pattern stands for, in order; one without a pattern stands for itself, as all of HTTP do. Raises
    UsageError when there are none."""
    if scheme_of(uri) in READ_ONLY or not glob.has_magic(uri):
        return [uri]
    files, path = file_system(uri, "input")
    try:
        found = sorted(name for name, facts in files.glob(path, detail=True).items() if facts["type"] == "file")
    except Exception as error:
        raise _unread(uri, error) from error
    if not found:
        raise UsageError(f"input {uri}: no file matches")
    return [files.unstrip_protocol(name) for name in found]


@contextmanager
def fetched(uri: str, directory: Path | None = None) -> Iterator[Path]:
    """A copy of a file, in `directory` or that for temporary files, removed at the end. Raises UsageError where there
    is no such file, InputError where it cannot be read to its end, DiskFull."""
    files, path = file_system(uri, "input")
    suffix = "".join(PurePosixPath(file_name(uri)).suffixes[-2:])
    number, name = tempfile.mkstemp(suffix, ".umbel-input-", directory)
    os.close(number)
    try:
        try:
            files.get_file(path, name)
        except Exception as error:
            raise _unread(uri, error) from error
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def file_system(uri: str, option: str) -> tuple[Any, str]:
    """The file system of a URI, and the path there. Raises UsageError where there is none."""
    import fsspec.core

    scheme = scheme_of(uri)
    try:
        return fsspec.core.url_to_fs(uri)
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        advice = f"install {package} (pip install {package})" if package else str(error)
        raise UsageError(f"{option} {uri}: {scheme}:// needs a package that is not there: {advice}") from None
    except Exception as error:
        raise UsageError(f"{option} {uri}: {said(error)}") from error


def _unread(uri: str, error: Exception) -> Exception:
    if isinstance(error, FileNotFoundError):
        return UsageError(f"input {uri}: no such file")
    if isinstance(error, OSError) and error.errno and error.filename is not None:  # of the copy
        return DiskFull(f"input {uri}: no copy here: {error.strerror}")
    return InputError(f"input {uri}: cannot be read: {said(error)}; nothing was run")


def said(error: Exception) -> str:
    """An error of a library in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}".removesuffix(": ")

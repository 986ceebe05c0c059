"""Small JSON files that several processes read and write at once: whole or not at all, and never needed.

They lie in `$UMBEL_CACHE`, `$XDG_CACHE_HOME/umbel` or `~/.cache/umbel`; `UMBEL_CACHE=off` keeps nothing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

MOST_FILES = 256  # in the folder; those that were changed last are kept
OLD = 3_600.0  # seconds after which a part file has been abandoned
LOCK = "lock"  # one for all files, so that none is left beside each
_OURS = re.compile(r"[a-z]+-[0-9a-f]{20}(\.json|\.lock|\.json\.\d+\.part)")
_LEVEL = 4  # warnings name the caller's caller: the code that asked for a history


def cache_folder() -> Path | None:
    """Where histories lie; None when they are switched off."""
    asked = os.environ.get("UMBEL_CACHE", "")
    if asked.lower() == "off":
        return None
    if asked:
        return Path(asked).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "umbel"


def read_json(path: Path | None, parse: Callable[[Mapping[str, Any]], T]) -> T | None:
    """The file's contents through `parse`; None when there is no file, or (with a warning) when it is damaged."""
    if path is None:
        return None
    try:
        return parse(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        warnings.warn(f"{path}: ignored, as it cannot be read ({_shown(error)})", stacklevel=_LEVEL)
        return None


def change_json(path: Path | None, change: Callable[[], Mapping[str, Any]]) -> None:
    """Replace a file by what `change` returns, while no other process changes it.

    Where files may not be written nothing is kept, without a warning; any other failure is a warning.
    """
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(LOCK)):
            part = path.with_name(f"{path.name}.{os.getpid()}.part")
            try:
                part.write_text(json.dumps(change(), allow_nan=False))
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
            with suppress(OSError):
                _clean(path.parent)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return
        warnings.warn(f"{path}: not saved ({_shown(error)})", stacklevel=_LEVEL)


def _clean(folder: Path) -> None:
    """Remove the least recently changed files where there are too many, and temporary files of writers that died. Files
    with other names are left alone."""
    found = [(entry.stat().st_mtime, Path(entry)) for entry in os.scandir(folder) if _OURS.fullmatch(entry.name)]
    kept = sorted((at, path) for at, path in found if path.suffix == ".json")
    left = [path for at, path in found if path.suffix == ".lock" or (path.suffix == ".part" and at < time.time() - OLD)]
    for path in (*(path for _, path in kept[: max(0, len(kept) - MOST_FILES)]), *left):
        path.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the file's lock. Where the file system has none, go on without it: a lost update is the worst that can
    happen."""
    with open(path, "w") as held:
        with suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)  # given back when the file is closed, also by a process that dies
        yield


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"

"""Writes the files that a user asked for beside the answers: pages, figures, traces."""

from __future__ import annotations

import os
import re
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from umbel.errors import UsageError
from umbel.jobs.paths import JobPaths, follow, is_stream, kind_of
from umbel.jobs.write.sink import open_new, part_path, remove_part

_OPEN = re.compile(r"/(?:dev|dev/fd|proc/self/fd)/(stdout|stderr|\d+)")
PAGE, SUMMARY, TRACE = b"<!doctype html>", b'{\n  "status":', b'{"displayTimeUnit":'  # what each begins with


@contextmanager
def writing(option: str, path: Path) -> Iterator[BinaryIO]:
    """A file to fill, which appears when it is complete; a pipe or a device is written to directly. Raises UsageError
    when that cannot be done."""
    try:
        if kind_of(path) or is_stream(path):
            with open_stream(path) as stream:
                yield stream
            return
        target = follow(path)
        part = part_path(target.with_name("umbel"))  # which has room for any name
        try:
            with open_new(part) as stream:
                yield stream
            os.replace(part, target)
        finally:
            remove_part(part)
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written ({error.strerror or error})") from None


def open_stream(path: Path) -> BinaryIO:
    """Open a pipe or device for writing. An open stream of this process continues at its position, as opening it again
    would truncate its file."""
    found = _OPEN.fullmatch(str(path))
    if found is None:
        return open(path, "wb")
    sys.stdout.flush()
    return os.fdopen(os.dup({"stdout": 1, "stderr": 2}.get(found[1]) or int(found[1])), "wb")


def check_page(path: Path, *, sources: Sequence[Path] = (), output: Path | None = None) -> None:
    """Raise UsageError when a page of HTML would overwrite a file of its job, or another file."""
    JobPaths(tuple(sources), None if output is None else follow(output)).with_extra("--html", path, PAGE)


def write_page(path: Path, html: str, *, show: bool = False) -> None:
    """Write a page of HTML, and with `show` open it in a browser, or say where it is. Raises UsageError."""
    with writing("--html", path) as out:
        out.write(html.encode())
    if show:
        place = path.resolve()
        opened = has_display() and webbrowser.open(place.as_uri())
        print(f"page: {place}" if opened else f"no browser to show it in; the page is {place}", file=sys.stderr)


def has_display() -> bool:
    """Whether a browser can open a window: without one, those of the terminal would take it over."""
    if sys.platform != "linux":
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))

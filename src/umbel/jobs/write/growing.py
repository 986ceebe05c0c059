"""The file beside an output that grows while its job runs: rows as they finish, for those who do not wait for all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from umbel.errors import UsageError
from umbel.jobs.paths import growing_path
from umbel.jobs.store import JobStore
from umbel.jobs.write.formats.blocks import blocks
from umbel.jobs.write.formats.named import format_of

GROWING = "growing"  # the store's record that the file is its job's


@contextmanager
def growing(store: JobStore, output: Path, order: str, *, fresh: bool) -> Iterator[None]:
    """A block in which the rows of a job come. In the order of "finish", and as JSON lines, OUT.part has them too: at
    first those of the store, then each group that it commits. The file stays where a stop or an error ends the block,
    and is removed else, as the output is there then. Raises UsageError where, unless `fresh`, another file has its
    name."""
    path, form, ours = growing_path(output), format_of(output), bool(store.get(GROWING))
    if order != "finish" or form.kind != "lines" or form.packing:
        if ours:
            path.unlink(missing_ok=True)
        yield
        return
    if os.path.lexists(path) and not (ours or fresh):
        raise UsageError(f"{path}: is where rows go as they finish, and no job here made it; move it away")
    store.put(**{GROWING: True})
    file = _GrowingFile(path)
    for block in blocks(line for _, line in store.lines(order)):
        file.add(block)
    store.follow = file.add
    try:
        yield
    finally:
        store.follow = None
        file.close()
    path.unlink(missing_ok=True)


class _GrowingFile:
    """Takes lines as long as they can be written: it is a view of the store, without which the job goes on."""

    def __init__(self, path: Path):
        self._descriptor: int | None = None
        try:
            path.unlink(missing_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError:
            self.close()

    def add(self, lines: Sequence[bytes]) -> None:
        """Append some lines."""
        if self._descriptor is None or not lines:
            return
        left = memoryview(b"\n".join(lines) + b"\n")
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            self.close()

    def close(self) -> None:
        """Close the file; nothing more is written."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

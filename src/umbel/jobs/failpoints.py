"""Named places around every durable act of a job, so that tests can die or fail at each one."""

from __future__ import annotations

from collections.abc import Callable

FailHook = Callable[[str], None]

ACTS = (
    "store.create",
    "store.identify",
    "store.forget",
    "store.commit",
    "store.keep",
    "output.open",
    "output.write",
    "output.fsync",
    "store.seal",
    "output.rename",
    "output.fsync_dir",
    "store.finish",
)
FAILPOINTS = tuple(f"{act}.{moment}" for act in ACTS for moment in ("before", "after"))


def no_failpoint(name: str) -> None:
    """Do nothing, which is right outside tests."""

"""What a client may put into a store."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """`file_bytes`: of an uploaded file; `rows`: of a batch, both OpenAI's; `files` and `live_batches` of each key;
    `running_batches`: of all keys, that run at a time."""

    file_bytes: int = 200 * MIB
    rows: int = 50_000
    files: int = 10_000
    live_batches: int = 1_000
    running_batches: int = 4

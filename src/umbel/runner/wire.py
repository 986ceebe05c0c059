"""Steps as bytes, and from the first rank of a process group to the others; arrays only, nothing that could be code."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from enum import IntEnum

import numpy as np
import torch
import torch.distributed as dist

from umbel.ir.logit_changes import LogitChanges
from umbel.ir.scores import Scores
from umbel.ir.step import Sampling, Step
from umbel.ir.sums import RowRanges


class Word(IntEnum):
    """What the first rank orders the others to do: to stop, to make a KV store (of so many pages of so many tokens), to
    compute a step."""

    STOP = 0
    STORE = 1
    STEP = 2


def encode_step(step: Step) -> bytes:
    """A step as an npz archive, with its masks filled; fields that are None are left out."""
    if step.sampling.filled is not None:
        step.sampling.filled()
        step = replace(step, sampling=replace(step.sampling, filled=None))
    parts = {"sampling": step.sampling, "scores": step.scores, "changes": step.sampling.changes, "sums": step.sums}
    arrays = {f.name: getattr(step, f.name) for f in fields(Step) if f.name not in parts}
    for name, part in parts.items():
        own = [f.name for f in fields(part) if f.name not in parts] if part is not None else []
        arrays |= {f"{name}.{field}": getattr(part, field) for field in own}
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(array) for name, array in arrays.items() if array is not None})
    return buffer.getvalue()


def decode_step(data: bytes) -> Step:
    """What `encode_step` was given."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        found = dict(arrays)
    drawn, scored, changed, summed = (
        {name.removeprefix(part): found.pop(name) for name in list(found) if name.startswith(part)}
        for part in ("sampling.", "scores.", "changes.", "sums.")
    )
    scores = Scores(scored["at"], scored["targets"], int(scored["top"])) if scored else None
    page_size = int(found.pop("page_size"))
    sampling = Sampling(**drawn, changes=LogitChanges(**changed) if changed else None)
    sums = RowRanges(**summed) if summed else None
    return Step(**found, page_size=page_size, sampling=sampling, scores=scores, sums=sums)


def tell(word: Word, data: bytes = b"") -> None:
    """Send a word and its data from the first rank to all others."""
    dist.broadcast(torch.tensor([int(word), len(data)]), 0)
    if data:
        dist.broadcast(torch.frombuffer(bytearray(data), dtype=torch.uint8), 0)


def listen() -> tuple[Word, bytes]:
    """What the first rank tells; waits for it."""
    head = torch.empty(2, dtype=torch.int64)
    dist.broadcast(head, 0)
    word, size = head.tolist()
    body = torch.empty(size, dtype=torch.uint8)
    if size:
        dist.broadcast(body, 0)
    return Word(word), body.numpy().tobytes()

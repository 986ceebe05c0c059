"""What a checkpoint must hold for one of our tensors."""

from __future__ import annotations

from dataclasses import dataclass

FLOATS = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True, slots=True)
class Part:
    """A checkpoint tensor that becomes (rows of) one of ours, the types it may have, and whether it must be there."""

    name: str
    shape: tuple[int, ...]
    dtypes: tuple[str, ...] = FLOATS
    needed: bool = True

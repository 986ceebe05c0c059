"""What a checkpoint must hold for one of our tensors."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

FLOATS = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True, slots=True)
class Part:
    """A checkpoint tensor that becomes (rows of) one of ours, the types it may have, and whether it must be there.

    `lies`: as "rows" of ours, whatever axes it has before the last; "turned": inputs first, of each expert if there are
    several; "paired": turned, with the outputs of gate and up by turns (gpt-oss); "grouped": for each KV head its
    queries, its key and its value, of which there are so many `groups`: KV heads, queries of each, numbers of a head.
    `ours`: the shape that it has with us, () for its own.
    """

    name: str
    shape: tuple[int, ...]
    dtypes: tuple[str, ...] = FLOATS
    needed: bool = True
    lies: Literal["rows", "turned", "paired", "grouped"] = "rows"
    ours: tuple[int, ...] = ()
    groups: tuple[int, int, int] = (0, 0, 0)

    @property
    def filled(self) -> tuple[int, ...]:
        """The shape of the rows of ours that it fills."""
        return self.ours or self.shape


def stacked(name: str, shape: tuple[int, ...], *, lies: Literal["rows", "turned", "paired"] = "rows") -> Part:
    """A part that has something of `shape` for each of several experts, `[experts, outputs]` or `[experts, outputs,
    inputs]`; they stand one above another in ours."""
    ours = (prod(shape[:2]), *shape[2:])
    turns = lies != "rows" and len(shape) == 3
    return Part(name, (shape[0], shape[2], shape[1]) if turns else shape, lies=lies, ours=ours)


def as_ours(tensor: Tensor, part: Part) -> Tensor:
    """A tensor as the checkpoint has it in the order and the shape of ours."""
    from torch import arange, cat  # here, as parts are described without torch

    if part.lies == "paired":
        *experts, outputs = tensor.shape
        by_half = tensor.reshape(*experts, outputs // 2, 2).movedim(-1, 1)  # [experts, 2, inputs, outputs / 2]
        return by_half.movedim(2, -1).reshape(part.filled) if tensor.ndim == 3 else by_half.reshape(part.filled)
    if part.lies == "grouped":
        kv_heads, queries, dim = part.groups
        places = arange(len(tensor)).view(kv_heads, queries + 2, dim)
        return tensor[cat([each.flatten() for each in places.tensor_split((queries, queries + 1), 1)])]
    return (tensor.transpose(-1, -2) if part.lies == "turned" and tensor.ndim > 1 else tensor).reshape(part.filled)

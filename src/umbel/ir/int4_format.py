"""How the weights of a model's layers are packed into 4 bits: as a checkpoint has them, or by us as they are loaded."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_GROUP = 128  # inputs that share a scale where we round: what most checkpoints have


@dataclass(frozen=True, slots=True)
class Int4Format:
    """How a model's weights are packed into 4 bits.

    `packing`: "gptq", "gptq_v2", "awq" or "compressed-tensors" as stored, or "loading" for floats that are rounded when
        loaded.
    `group`: how many inputs of an output share a scale; None: all of them.
    `zeros`: zero points are stored; otherwise all are 8.
    `act_order`: inputs are assigned to groups in an order of their own.
    `plain`: products that are floats ("layers.3.down"; the embedding and the head always are).
    `symmetric`: zero points are stored and must be 8.
    """

    packing: str
    group: int | None = None
    zeros: bool = True
    act_order: bool = False
    plain: tuple[str, ...] = ()
    symmetric: bool = False

    def group_of(self, inputs: int) -> int:
        """The number of inputs that share a scale in a product of so many."""
        if self.packing == "loading":
            return min(LARGEST_GROUP, inputs & -inputs)  # the largest power of two that divides
        return inputs if self.group is None else self.group

    def keeps(self, name: str, inputs: int) -> bool:
        """Whether a product of so many inputs ("layers.3.down") stays in 4 bits once it is loaded on a GPU."""
        return name not in self.plain and not self.act_order and inputs % 2 == 0 and self.group_of(inputs) % 2 == 0


LOADING = Int4Format("loading")

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
    `on_cpu`: they are to be kept on a processor, which takes whole groups of octets only.
    """

    packing: str
    group: int | None = None
    zeros: bool = True
    act_order: bool = False
    plain: tuple[str, ...] = ()
    symmetric: bool = False
    on_cpu: bool = False

    @property
    def group_bytes(self) -> int:
        """Bytes of an output's group of inputs: a scale in 16 bits and a zero point in 8, or both in 32."""
        return 4 if self.on_cpu else 3

    def group_of(self, inputs: int) -> int:
        """The number of inputs that share a scale in a product of so many."""
        if self.packing == "loading":
            return min(LARGEST_GROUP, inputs & -inputs)  # the largest power of two that divides
        return inputs if self.group is None else self.group

    def keeps(self, name: str, inputs: int) -> bool:
        """Whether a product of so many inputs ("layers.3.down") stays in 4 bits once it is loaded."""
        group, least = self.group_of(inputs), 8 if self.on_cpu else 2
        fits = group % least == 0 and inputs % (group if self.on_cpu else 2) == 0
        return fits and name not in self.plain and not self.act_order


LOADING = Int4Format("loading")

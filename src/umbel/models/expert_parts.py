"""How checkpoints keep experts: a tensor for each of them, or one for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from umbel.ir.architecture import Matmul
from umbel.models.parts import Part, stacked


@dataclass(frozen=True, slots=True)
class StoredExperts:
    """What a checkpoint calls the experts of a layer, relative to it.

    `gate_up`, `down`: the tensors that ours stack, "{}" is the number of an expert. `lies`: each has tensors of its
    "own", or one has all, as "rows" or "paired" (`parts.Part`); beside "paired" ones `down` is "turned".
    """

    gate_up: tuple[str, ...]
    down: tuple[str, ...]
    lies: Literal["own", "rows", "paired"] = "own"

    def weight(self, m: Matmul) -> tuple[Part, ...]:
        """The parts of a product's weights."""
        names, lies = self._of(m)
        if lies == "own":
            every = [(name.format(i), n) for i in range(m.experts) for name, n in zip(names, m.parts, strict=True)]
            return tuple(Part(name, (outputs, m.inputs)) for name, outputs in every)
        return (stacked(names[0], (m.experts, m.outputs, m.inputs), lies=lies),)

    def bias(self, m: Matmul) -> tuple[Part, ...]:
        """The part of a product's biases, of all experts."""
        names, lies = self._of(m)
        assert lies != "own", "no family has them so"
        return (stacked(f"{names[0]}_bias", (m.experts, m.outputs), lies="paired" if lies == "paired" else "rows"),)

    def _of(self, m: Matmul) -> tuple[tuple[str, ...], Literal["own", "rows", "turned", "paired"]]:
        if m.name == "experts_gate_up":
            return self.gate_up, self.lies
        return self.down, "turned" if self.lies == "paired" else self.lies


def own_experts(block: str, gate: str, up: str, down: str) -> StoredExperts:
    """Experts with tensors of their own in a block of this name."""
    return StoredExperts(*(tuple(f"{block}.experts.{{}}.{n}.weight" for n in names) for names in ((gate, up), (down,))))

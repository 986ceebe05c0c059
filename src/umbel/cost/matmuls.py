"""The dense layers of a model as a list of matrix products."""

from __future__ import annotations

from dataclasses import dataclass

from umbel.ir.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Matmul:
    """One dense layer: `inputs` × `outputs` weights, used `count` times in the model."""

    name: str
    inputs: int
    outputs: int
    count: int

    @property
    def flops_per_token(self) -> int:
        """Multiplications and additions, over all its uses."""
        return 2 * self.inputs * self.outputs * self.count

    @property
    def weights(self) -> int:
        """Weights, over all its uses."""
        return self.inputs * self.outputs * self.count


def matmuls(spec: ModelSpec) -> tuple[Matmul, ...]:
    """The dense layers that every token passes through (the output head, which only samples need, is not one)."""
    q, kv = spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim
    shapes = [
        ("q", spec.hidden_size, q),
        ("k", spec.hidden_size, kv),
        ("v", spec.hidden_size, kv),
        ("o", q, spec.hidden_size),
        ("gate", spec.hidden_size, spec.intermediate_size),
        ("up", spec.hidden_size, spec.intermediate_size),
        ("down", spec.intermediate_size, spec.hidden_size),
    ]
    return tuple(Matmul(name, inputs, outputs, spec.n_layers) for name, inputs, outputs in shapes)

"""The dense layers of a model as a list of matrix products."""

from __future__ import annotations

from dataclasses import dataclass

from umbel.ir.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Matmul:
    """One dense layer: `inputs` × `outputs` weights, used `count` times in the model.

    `experts`: how many such layers stand in its place in a mixture.
    `per_token`: how many of them a token uses.
    """

    name: str
    inputs: int
    outputs: int
    count: int
    experts: int = 1
    per_token: int = 1

    @property
    def flops_per_token(self) -> int:
        """Multiplications and additions per token, over all uses."""
        return 2 * self.inputs * self.outputs * self.count * self.per_token

    @property
    def weights(self) -> int:
        """Number of weights, over all uses."""
        return self.inputs * self.outputs * self.count * self.experts


def matmuls(spec: ModelSpec) -> tuple[Matmul, ...]:
    """The dense layers that every token passes through (the output head, which only samples need, is not one)."""
    q, kv, layers = spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim, spec.n_layers
    dense = len(spec.experts.dense_layers) if spec.experts else layers
    return (
        Matmul("q", spec.hidden_size, q, layers),
        Matmul("k", spec.hidden_size, kv, layers),
        Matmul("v", spec.hidden_size, kv, layers),
        Matmul("o", q, spec.hidden_size, layers),
        *_gate(spec, dense),
        *_experts(spec, layers - dense),
    )


def ending(spec: ModelSpec) -> tuple[Matmul, ...]:
    """The dense layers behind the last attention, which only rows with logits pass through."""
    is_dense = spec.experts is None or spec.n_layers - 1 in spec.experts.dense_layers
    block = _gate(spec, 1) if is_dense else _experts(spec, 1)
    return (Matmul("o", spec.n_heads * spec.head_dim, spec.hidden_size, 1), *block)


def _gate(spec: ModelSpec, count: int) -> tuple[Matmul, ...]:
    hidden, wide = spec.hidden_size, spec.intermediate_size
    shapes = (("gate", hidden, wide), ("up", hidden, wide), ("down", wide, hidden))
    return tuple(Matmul(*shape, count) for shape in shapes if count)


def _experts(spec: ModelSpec, count: int) -> tuple[Matmul, ...]:
    if spec.experts is None or not count:
        return ()
    hidden, wide, used = spec.hidden_size, spec.experts.width, (spec.experts.count, spec.experts.per_token)
    shapes = (("expert_gate", hidden, wide), ("expert_up", hidden, wide), ("expert_down", wide, hidden))
    return (Matmul("router", hidden, used[0], count), *(Matmul(*shape, count, *used) for shape in shapes))

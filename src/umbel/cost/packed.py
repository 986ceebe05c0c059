"""How many bytes int4 weights take, and how many fewer that is than as floats."""

from __future__ import annotations

from collections.abc import Mapping

from umbel.cost.matmuls import matmuls
from umbel.ir.spec import ModelSpec

GROUP_BYTES = 3  # of an output's group of inputs: a scale in 16 bits and a zero point in 8
STACKS: Mapping[str, str] = {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "gate_up", "up": "gate_up"}
"""The product that a dense layer is part of; the others are products by themselves."""


def spared_bytes(spec: ModelSpec, width: int) -> tuple[int, int]:
    """Bytes by which the weights of `spec` are smaller than floats of `width` bytes, in all and behind the last
    attention."""
    if spec.quantization is None:
        return 0, 0
    total = ending = 0
    for m in matmuls(spec):
        product, size = STACKS.get(m.name, m.name), m.inputs * m.outputs * width
        spared = [size - product_bytes(spec, layer, product, m.inputs, m.outputs, width) for layer in range(m.count)]
        total += sum(spared)
        ending += spared[-1] if product != "qkv" else 0
    return total, ending


def product_bytes(spec: ModelSpec, layer: int, product: str, inputs: int, outputs: int, width: int) -> int:
    """Bytes of one product's weights ("qkv", "o", "gate_up", "down") in one layer: half a byte each with the scales and
    zeros of their groups, or floats of `width` bytes."""
    form = spec.quantization
    if form is None or not form.keeps(f"layers.{layer}.{product}", inputs):
        return inputs * outputs * width
    return outputs * (inputs // 2 + GROUP_BYTES * -(-inputs // form.group_of(inputs)))

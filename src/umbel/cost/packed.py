"""How many bytes int4 weights take, and how many fewer that is than as floats."""

from __future__ import annotations

from umbel.ir.architecture import Matmul, layer_matmuls
from umbel.ir.spec import ModelSpec


def spared_bytes(spec: ModelSpec, width: int) -> tuple[int, int]:
    """Bytes by which the weights of `spec` are smaller than floats of `width` bytes, in all and behind the last
    attention."""
    total = ending = 0
    for layer in range(spec.n_layers if spec.quantization else 0):
        for m in layer_matmuls(spec, layer):
            spared = m.weights * width - product_bytes(spec, layer, m, width)
            total += spared
            ending += spared if m.is_ending and layer == spec.n_layers - 1 else 0
    return total, ending


def product_bytes(spec: ModelSpec, layer: int, m: Matmul, width: int) -> int:
    """Bytes of one product's weights in one layer: half a byte each with the scales and zeros of their groups, or
    floats of `width` bytes, as those of routers and experts always are."""
    form = spec.quantization
    if form is None or m.experts > 1 or not m.cut or not form.keeps(f"layers.{layer}.{m.name}", m.inputs):
        return m.weights * width
    return m.outputs * (m.inputs // 2 + form.group_bytes * -(-m.inputs // form.group_of(m.inputs)))

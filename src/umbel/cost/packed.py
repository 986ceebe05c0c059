"""How many bytes weights take that are int4, or wider than the others, and how many fewer that is than as floats."""

from __future__ import annotations

from math import prod

from umbel.ir.architecture import Matmul, layer_matmuls, layer_vectors
from umbel.ir.spec import ModelSpec

WIDE = 4  # bytes of a float32


def spared_bytes(spec: ModelSpec, width: int) -> tuple[int, int]:
    """Bytes by which what layers have learned is smaller than if it all were floats of `width` bytes, in all and behind
    the last attention; below 0 where some of it is wider."""
    total = ending = 0
    for layer in range(spec.n_layers):
        vectors = sum(map(prod, layer_vectors(spec, layer).values())) * WIDE
        total -= vectors
        ending -= vectors if layer == spec.n_layers - 1 else 0
        for m in layer_matmuls(spec, layer):
            spared = m.weights * width - product_bytes(spec, layer, m, width)
            total += spared
            ending += spared if m.is_ending and layer == spec.n_layers - 1 else 0
    return total, ending


def experts_read(spec: ModelSpec, width: int) -> tuple[int, float]:
    """Bytes of all experts, but for those of the end of the last layer, and the share of them that a token leaves
    out."""
    found = [(n, m) for n in range(spec.n_layers) for m in layer_matmuls(spec, n) if m.experts > 1]
    counted = sum(product_bytes(spec, n, m, width) for n, m in found if not m.is_ending or n < spec.n_layers - 1)
    return counted, max((1 - m.per_token / m.experts for _, m in found), default=0.0)


def product_bytes(spec: ModelSpec, layer: int, m: Matmul, width: int) -> int:
    """Bytes of one product's weights in one layer: half a byte each with the scales and zeros of their groups, or
    floats of `width` bytes, as those of routers always are, and those of experts on a GPU."""
    form = spec.quantization
    if m.is_wide:
        return m.weights * WIDE
    is_float = form is None or not m.cut or (m.experts > 1 and not form.on_cpu)
    if form is None or is_float or not form.keeps(f"layers.{layer}.{m.name}", m.inputs):
        return m.weights * width
    return m.experts * m.outputs * (m.inputs // 2 + form.group_bytes * -(-m.inputs // form.group_of(m.inputs)))

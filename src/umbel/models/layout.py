"""What a checkpoint must hold for each of our tensors: names and shapes, from the spec alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umbel.ir.architecture import Matmul, layer_matmuls, layer_norms, layer_vectors, learned
from umbel.ir.spec import ModelSpec
from umbel.models.architectures import FAMILIES
from umbel.models.parts import Part
from umbel.models.stored import Stored


def layout(spec: ModelSpec) -> dict[str, tuple[Part, ...]]:
    """For each of our tensors, the checkpoint's tensors that it stacks (along the first axis), with their shapes."""
    hidden, vocab, stored = spec.hidden_size, spec.vocab_size, FAMILIES[spec.family].stored
    found = _of_vectors(stored.norm, {name: hidden for name in learned(spec.layers[-1].norm, "norm")})
    found["embed"] = (Part(f"{stored.embed}.weight", (vocab, hidden)),)
    if spec.edges.position_offset is not None:
        count = spec.max_positions + spec.edges.position_offset
        found["positions"] = (Part(f"{stored.positions}.weight", (count, hidden)),)
    if not spec.tied_embeddings:
        found["head"] = (Part(f"{stored.head}.weight", (vocab, hidden)),)
    if spec.edges.head_bias:
        found["head_bias"] = (Part(f"{stored.head}.bias", (vocab,)),)
    if spec.pooler.labels:
        found["classes"] = (Part("score.weight", (len(spec.pooler.labels), hidden)),)
    for layer in range(spec.n_layers):
        prefix = stored.layer.format(layer)
        for name, parts in _layer_layout(spec, layer).items():
            found[f"layers.{layer}.{name}"] = tuple(replace(part, name=f"{prefix}{part.name}") for part in parts)
    return found


def _layer_layout(spec: ModelSpec, layer: int) -> dict[str, tuple[Part, ...]]:
    """The tensors of one layer, names relative to it."""
    stored = FAMILIES[spec.family].stored.of_layer(spec.layer(layer))
    found: dict[str, tuple[Part, ...]] = {}
    for m in layer_matmuls(spec, layer):
        found |= _of_product(spec, stored, m)
    for name, shape in layer_vectors(spec, layer).items():
        stated, axes = stored.vectors[name]
        found[name] = (Part(stated, (*shape[:-1], *(1,) * axes, shape[-1]), ours=shape),)
    return found | _norm_parts(spec, layer, stored)


def product_parts(spec: ModelSpec, layer: int, m: Matmul) -> tuple[Part, ...]:
    """The checkpoint's tensors that the weights of a layer's product stack."""
    stored = FAMILIES[spec.family].stored.of_layer(spec.layer(layer))
    prefix = stored.layer.format(layer)
    return tuple(replace(part, name=f"{prefix}{part.name}") for part in _of_product(spec, stored, m)[m.name])


def _of_product(spec: ModelSpec, stored: Stored, m: Matmul) -> dict[str, tuple[Part, ...]]:
    """Weight and bias of a product."""
    if stored.experts is not None and m.name.startswith("experts"):
        bias = {f"{m.name}_bias": stored.experts.bias(m)} if m.has_bias else {}
        return {m.name: stored.experts.weight(m)} | bias
    rankless = m.name == "qkv" and any(layer.latent and not layer.latent.q_rank for layer in spec.layers)
    names = stored.products["q_and_kv" if rankless else m.name]
    each = list(zip(names, m.parts if len(names) > 1 else (m.outputs,), strict=True))
    weights = tuple(_weight(stored, f"{name}.weight", (outputs, m.inputs)) for name, outputs in each)
    biases = tuple(Part(f"{name}.bias", (outputs,)) for name, outputs in each)
    if m.name == "qkv" and stored.is_grouped:
        groups = spec.n_kv_heads, spec.n_heads // spec.n_kv_heads, spec.head_dim
        weights, biases = (tuple(replace(p, lies="grouped", groups=groups) for p in ps) for ps in (weights, biases))
    return {m.name: weights} | ({f"{m.name}_bias": biases} if m.has_bias else {})


def _weight(stored: Stored, name: str, shape: tuple[int, int]) -> Part:
    return Part(name, shape[::-1], lies="turned", ours=shape) if stored.is_turned else Part(name, shape)


def _norm_parts(spec: ModelSpec, layer: int, stored: Stored) -> dict[str, tuple[Part, ...]]:
    """The tensors of the norms of one layer."""
    own, found = spec.layer(layer), {}
    has_two = own.is_parallel and "mlp_norm" in own.norms
    names = dict(stored.norms) | (dict(stored.two_norms) if has_two else {})
    for norm in layer_norms(spec, layer):
        base = norm.name.removesuffix("_bias")
        full = f"{names[base]}.{'weight' if base == norm.name else 'bias'}"
        heads = norm.width // spec.head_dim
        if norm.is_by_head and "{}" in full:
            found[norm.name] = tuple(Part(full.format(head), (spec.head_dim,)) for head in range(heads))
        else:
            found[norm.name] = (Part(full, (heads, spec.head_dim) if norm.is_by_head else (norm.width,)),)
    return found


def _of_vectors(stored: str, widths: Mapping[str, int]) -> dict[str, tuple[Part, ...]]:
    """Weight and bias of a norm that a checkpoint calls `stored`."""
    kinds = {name: "bias" if name.endswith("_bias") else "weight" for name in widths}
    return {name: (Part(f"{stored}.{kinds[name]}", (width,)),) for name, width in widths.items()}

"""What is known of a model whose layers a module of another library computes: its attention, and its products."""

from __future__ import annotations

from dataclasses import dataclass

from umbel.ir.kv_shape import KVShape


@dataclass(frozen=True, slots=True)
class HostedProduct:
    """A matrix of a layer, `[outputs, inputs]`, by the name of its module; in its place may stand `experts`, of which a
    token uses `per_token`."""

    name: str
    inputs: int
    outputs: int
    has_bias: bool = False
    experts: int = 1
    per_token: int = 1


@dataclass(frozen=True, slots=True)
class HostedLayer:
    """One layer: what it asks of attention, and its products."""

    kv: KVShape
    products: tuple[HostedProduct, ...]


@dataclass(frozen=True, slots=True)
class Hosted:
    """A model that runs through a module of transformers, with our attention and KV in it.

    `architecture`: the module's class. `calls_linear`: products are made outside linear modules, too (by routers).
    `own_products`: all products can be made by ours, so that in float32 on a CPU a row's bits do not depend on its
    neighbours; others are torch's, whose last bits may.
    """

    architecture: str
    layers: tuple[HostedLayer, ...]
    calls_linear: bool = False
    own_products: bool = True

"""The experts of a mixture: how many there are, how a token's are chosen, what each computes, what is beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Router:
    """How a token's experts are chosen among the router's logits, and which share of the result each has.

    `scores`: what experts are compared by and take their shares from: the "softmax" of all logits, the "sigmoid" of
    each, or what "sparsemixer" makes of them (Phi-3.5, arXiv 2409.12136), whose `band` says how far below the largest
    logit, relative to it, another one still counts.
    `normalised`: the shares of a token are divided by their sum, that is at least `least_sum`, plus `epsilon`. Of
    "softmax" scores these are those of a softmax over the chosen alone.
    `scale`: what shares are multiplied by afterwards.
    `biased`: logits have a learned bias. `corrected`: scores have one that counts in the choice only (DeepSeek-V3,
    2412.19437).
    `groups`: experts stand in so many groups of one size, of which only the best `groups_used` are chosen from; a group
    is as good as the sum of its `group_best` best experts (DeepSeek-V2, 2405.04434).
    `in_float32`: logits are computed in float32, whatever the model's type is.
    """

    scores: Literal["softmax", "sigmoid", "sparsemixer"] = "softmax"
    normalised: bool = False
    least_sum: float = 0.0
    epsilon: float = 0.0
    scale: float = 1.0
    biased: bool = False
    corrected: bool = False
    groups: int = 1
    groups_used: int = 1
    group_best: int = 1
    band: float = 0.0
    in_float32: bool = False


@dataclass(frozen=True, slots=True)
class ClampedGate:
    """What gpt-oss has in place of `silu(gate) * up`: `gate * sigmoid(alpha * gate) * (up + 1)`, with `gate` cut to at
    most `limit` and `up` to between `-limit` and `limit`."""

    alpha: float
    limit: float


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts of a mixture: every layer but `dense_layers` has them in place of one gate.

    `count`: experts in a layer.
    `per_token`: how many of them a token passes through.
    `width`: inner units of each.
    `biased`: their products have biases. `gate`: what bends their inner units; None: `silu(gate) * up`.
    `shared_width`: inner units of what every token passes through besides, 0: there is nothing. `shared_bias`: its
    products have biases; `shared_gate`: its result is multiplied by the sigmoid of a product with one output
    (Qwen1.5-MoE).
    """

    count: int
    per_token: int
    width: int
    router: Router = Router()
    dense_layers: tuple[int, ...] = ()
    biased: bool = False
    gate: ClampedGate | None = None
    shared_width: int = 0
    shared_bias: bool = False
    shared_gate: bool = False

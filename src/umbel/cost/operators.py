"""What each operator of a step must compute and move at least, and how long that takes at a machine's ceilings."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from umbel.cost.packed import product_bytes
from umbel.cost.shape import BYTES, Shape, final_numbers
from umbel.cost.windows import WHOLE, Windows
from umbel.ir.architecture import layer_matmuls, layer_norms
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step

PREFILL, MIXED, DECODE = "prefill-bound", "mixed", "decode-bound"
KINDS = (PREFILL, MIXED, DECODE)
MOST = 0.9  # of a step's arithmetic, to be called after it


@dataclass(frozen=True, slots=True)
class StepWork:
    """The work of one step.

    `tokens`: tokens computed.
    `pairs`: pairs of a query and a key it sees.
    `logit_rows`: rows that pass the output head.
    `samples`: tokens drawn from them.
    `kv_tokens`: tokens whose KV each layer reads or writes.
    `decoding`, `decoding_pairs`: the tokens that stand alone in their node and are sampled from, and their pairs.
    `in_use`: KV tokens below the rows.
    """

    tokens: int
    pairs: int
    logit_rows: int
    samples: int
    kv_tokens: int
    decoding: int
    decoding_pairs: int
    in_use: int

    @classmethod
    def of(cls, step: Step, kv_read: int, windows: Windows = WHOLE) -> StepWork:
        """Count a step in which each layer read `kv_read` KV tokens (the mean, by bytes); `windows` are the model's."""
        seen = windows.seen(step.positions + 1)
        alone = step.row_begin[step.row_end - step.row_begin == 1]
        sampled = np.unique(step.sampling.at)
        decoding = alone[np.isin(alone, sampled)]
        return cls(
            tokens=step.n_rows,
            pairs=round(seen.sum()),
            logit_rows=len(sampled),
            samples=len(step.sampling),
            kv_tokens=kv_read + int(np.count_nonzero(step.fresh)),
            decoding=len(decoding),
            decoding_pairs=round(seen[decoding].sum()),
            in_use=int((step.end - step.start).sum()),
        )


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator in all its uses in a step.

    `token_flops`, `pair_flops`, `logit_flops`: FLOPs per token, per pair and per row of logits.
    `weight_bytes`: bytes of weights read in each step.
    `logit_weight_bytes`: more of them in steps with logits, as the end of the last layer only serves rows of logits.
    `kv_bytes`: bytes of KV per token read or written.
    `activation_bytes`: per token, only where an operator does nothing but pass over them; between others they can stay
        in a cache.
    `logit_bytes`: per sample.
    `unused`: share of the experts that a token leaves out. Several tokens are assumed to choose all experts equally
        often.
    """

    name: str
    token_flops: int = 0
    pair_flops: int = 0
    logit_flops: int = 0
    weight_bytes: int = 0
    logit_weight_bytes: int = 0
    kv_bytes: int = 0
    activation_bytes: int = 0
    logit_bytes: int = 0
    unused: float = 0.0

    def flops(self, work: StepWork) -> int:
        """Multiplications and additions that the answers need."""
        per_logits = work.logit_rows * self.logit_flops
        return work.tokens * self.token_flops + work.pairs * self.pair_flops + per_logits

    def n_bytes(self, work: StepWork) -> int:
        """Bytes that must pass between processor and memory."""
        weights = self._read(self.weight_bytes, work.tokens) + self._read(self.logit_weight_bytes, work.logit_rows)
        kv, logits = work.kv_tokens * self.kv_bytes, work.samples * self.logit_bytes
        return weights + kv + logits + work.tokens * self.activation_bytes

    def _read(self, n_bytes: int, rows: int) -> int:
        """The bytes of the weights of some layers that so many rows read."""
        return round(n_bytes * (1 - self.unused**rows)) if rows else 0


def operators(spec: ModelSpec, dtype: str) -> tuple[Operator, ...]:
    """The operators of a model that have a lower bound, in the order in which a token passes them.

    `norms` includes the residual additions, `rotary` the norms of query and key heads, `gate_up` and `experts` the
    activation, `head` the last norm; biases belong to their product. A layer has either experts or a gate.
    """
    width, hidden = BYTES[dtype], spec.hidden_size
    shape, table, products = Shape.of(spec, dtype), spec.vocab_size * hidden, _products(spec, width)
    return (
        Operator("embedding", activation_bytes=2 * hidden * width),
        _norms(spec, width),
        products.pop("qkv"),
        _rotary(spec, width),
        Operator("attention", pair_flops=shape.pair_flops, kv_bytes=shape.kv_bytes),
        *products.values(),
        Operator("head", logit_flops=2 * table, logit_weight_bytes=(table + final_numbers(spec)) * width),
        Operator("sampling", logit_bytes=4 * spec.vocab_size),
    )


def _norms(spec: ModelSpec, width: int) -> Operator:
    """The norms of hidden states; those behind the last attention are for rows of logits."""
    last = spec.n_layers - 1
    per_layer = [[n for n in layer_norms(spec, layer) if not n.of_heads] for layer in range(spec.n_layers)]
    ending = sum(n.width for n in per_layer[last] if n.is_ending)
    every = sum(n.width for norms in per_layer for n in norms)
    passes = sum(len(spec.layer(layer).norms) for layer in range(last)) + ("attn_norm" in spec.layer(last).norms)
    moved = 4 * spec.hidden_size * passes * width  # two read, their sum and its norm written
    return Operator(
        "norms", weight_bytes=(every - ending) * width, logit_weight_bytes=ending * width, activation_bytes=moved
    )


def _rotary(spec: ModelSpec, width: int) -> Operator:
    """The norms and rotation of query and key heads."""
    rotated = (spec.n_heads + spec.n_kv_heads) * spec.head_dim
    norms = sum(n.width for layer in range(spec.n_layers) for n in layer_norms(spec, layer) if n.of_heads)
    return Operator("rotary", weight_bytes=norms * width, activation_bytes=2 * rotated * len(spec.kv_shapes) * width)


def _products(spec: ModelSpec, width: int) -> dict[str, Operator]:
    """The products of all layers by name, those of experts as one, in weights of `width` bytes."""
    found: dict[str, Operator] = {}
    for layer in range(spec.n_layers):
        for m in layer_matmuls(spec, layer):
            name = "experts" if m.name.startswith("experts") else m.name
            one = found.get(name, Operator(name, unused=1 - m.per_token / m.experts))
            n_bytes = product_bytes(spec, layer, m, width) + m.biases * width
            if m.is_ending and layer == spec.n_layers - 1:
                found[name] = replace(
                    one,
                    logit_flops=one.logit_flops + m.flops,
                    logit_weight_bytes=one.logit_weight_bytes + n_bytes,
                )
            else:
                found[name] = replace(
                    one, token_flops=one.token_flops + m.flops, weight_bytes=one.weight_bytes + n_bytes
                )
    return found


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The most that a device does, in FLOP/s (of one dtype) and bytes/s, and how the first is known."""

    flops: float
    memory_rate: float
    source: str

    def with_flops(self, flops: float, source: str) -> Ceilings:
        """The same memory bandwidth with another arithmetic rate."""
        return replace(self, flops=flops, source=source)

    def or_better(self, other: Ceilings) -> Ceilings:
        """The higher of each: a device that other work disturbs looks slower than it is, never faster."""
        best = self if self.flops >= other.flops else other
        return replace(best, memory_rate=max(self.memory_rate, other.memory_rate))


def kind_of(work: StepWork, all_operators: tuple[Operator, ...]) -> str:
    """The kind of a step: by prompts or by decoding rows where these have more than 90 % of the layers' arithmetic,
    else mixed."""
    token = sum(o.token_flops for o in all_operators)
    pair = sum(o.pair_flops for o in all_operators)
    total = work.tokens * token + work.pairs * pair
    share = (work.decoding * token + work.decoding_pairs * pair) / total if total else 1.0
    return DECODE if share > MOST else PREFILL if share < 1 - MOST else MIXED

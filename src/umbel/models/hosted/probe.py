"""What a module of transformers asks of attention, layer by layer: one forward pass without numbers (on "meta").

The calls of the attention interface are recorded with what they pass, and the masks that the module makes are compared
with a causal one. What our attention cannot obey is refused here, by name, before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel

from umbel.errors import ModelError
from umbel.ir.hosted import Hosted, HostedLayer, HostedProduct
from umbel.ir.kv_shape import KVShape
from umbel.models.config_file import shorten
from umbel.models.hosted import experts
from umbel.models.hosted.linears import ProductsSeen, linears

NAME = "umbel-probe"
ROWS = 3
OBEYED = ("scaling", "sliding_window", "softcap", "s_aux")
NEUTRAL = ("position_ids", "use_cache", "is_causal", "dropout", "logits_to_keep")
"""What the interface passes that is obeyed, and what says nothing or is compared by itself; the rest is refused where
it is not None, False or a flag of what is returned."""
PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts", "moe_top_k")
BORDERS = (0, 1, 2, 3, 7, 8, 15, 16, 63, 64, 127, 128, 511, 512, 1023, 1024, 2047, 2048, 4095, 4096, 8191, 8192)

Mask = Callable[[Any, Any, Any, Any], Any]


@dataclass(slots=True)
class Calls:
    """What was recorded of one pass: the shape of each layer's attention, by layer, and the masks that were made."""

    context: int
    shapes: list[tuple[int, str, KVShape]] = field(default_factory=list)
    masks: dict[int, Mask] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)  # the stand-ins, so that no other one has the number of one

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **passed: Any
    ) -> tuple[Tensor, None]:
        """Note one call; raises ModelError for what cannot be obeyed."""
        shape = _shape_of(query, key, value, passed)
        mask = self.masks.get(id(attention_mask))
        if mask is None or not _is_causal(mask, shape.window, self.context):
            raise ModelError("a layer's mask is not a causal one, with the sliding window that it names or none")
        if (layer := getattr(module, "layer_idx", None)) is None:
            raise ModelError(f"{type(module).__name__} does not say which layer it is (layer_idx)")
        self.shapes.append((layer, type(module).__name__, shape))
        return query.new_empty(1, ROWS, shape.n_heads, shape.value_dim), None

    def mask(self, *, q_length: int, kv_length: int, mask_function: Mask, **_: Any) -> Tensor:
        """A mask's stand-in, which `attend` knows again."""
        made = torch.empty(1, 1, q_length, kv_length, dtype=torch.bool, device="meta")
        self.masks[id(made)] = mask_function
        self.kept.append(made)
        return made


def probe(model_class: type[PreTrainedModel], config: PreTrainedConfig, context: int) -> tuple[Hosted, int]:
    """What the module of a config asks for in contexts of up to `context` tokens, and how many logits it gives. Raises
    ModelError for what our attention cannot obey, and where the module cannot be run so."""
    calls = Calls(context)
    AttentionInterface.register(NAME, calls.attend)
    AttentionMaskInterface.register(NAME, calls.mask)
    experts.register()
    try:
        module = on_meta(model_class, config, NAME)
        body_of(module)
        ids = torch.zeros(1, ROWS, dtype=torch.int64, device="meta")
        with torch.no_grad(), ProductsSeen(module) as seen:
            out = module(
                input_ids=ids,
                position_ids=torch.arange(ROWS, device="meta")[None],
                attention_mask=torch.ones_like(ids),
                use_cache=False,
            )
    except ModelError:
        raise
    except Exception as error:  # whatever the code of two hundred architectures raises
        raise ModelError(f"transformers cannot run it: {type(error).__name__}: {shorten(str(error))}") from error
    layers = _layers(module, config, calls)
    return Hosted(model_class.__name__, layers, seen.linear, not seen.other), out.logits.shape[-1]


def on_meta(model_class: type[PreTrainedModel], config: PreTrainedConfig, attention: str) -> PreTrainedModel:
    """The module without numbers, whose layers call `attention` and our experts."""
    with torch.device("meta"):
        module = model_class._from_config(config, attn_implementation=attention)
    use_own_experts(module)
    return module.eval()


def use_own_experts(module: PreTrainedModel) -> None:
    """Have our products made in experts that go through transformers' interface for them."""
    if any(hasattr(inner, "has_gate") for inner in module.modules()):
        module.set_experts_implementation(experts.NAME)


def body_of(module: PreTrainedModel) -> str:
    """The name of the part of a causal model that ends in hidden states."""
    for name in (module.base_model_prefix, "model"):
        if isinstance(getattr(module, name, None), nn.Module):
            return name
    raise ModelError(f"{type(module).__name__} has no part apart from its head")


def _shape_of(query: Tensor, key: Tensor, value: Tensor, passed: dict[str, Any]) -> KVShape:
    """The attention of one call."""
    spare = [name for name, value in passed.items() if name not in OBEYED + NEUTRAL and _says_something(name, value)]
    if spare:
        raise ModelError(f"a layer passes {', '.join(sorted(spare))} to attention, which ours does not take")
    if passed.get("dropout"):
        raise ModelError("a layer drops attention weights")
    if passed.get("is_causal") is False:
        raise ModelError("a layer's attention is not causal")
    (_, n_heads, _, dim), (_, n_kv_heads, _, key_dim) = query.shape, key.shape
    if dim != key_dim or value.shape[1] != n_kv_heads or n_heads % n_kv_heads or key.shape[2] != ROWS:
        raise ModelError(
            f"heads of {tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)} are not understood"
        )
    scale = passed.get("scaling")
    return KVShape(
        n_heads,
        n_kv_heads,
        key_dim,
        value.shape[-1],
        float(dim**-0.5) if scale is None else float(scale),
        passed.get("sliding_window"),
        passed.get("softcap"),
        passed.get("s_aux") is not None,
    )


def _says_something(name: str, value: Any) -> bool:
    return not name.startswith("output_") and value is not None and value is not False


def _is_causal(mask: Mask, window: int | None, context: int) -> bool:
    """Whether a mask of transformers allows exactly the keys up to a query's own, or the last `window` of them."""
    edge = window or 0
    found = {*BORDERS, edge - 1, edge, edge + 1, 2 * edge, context // 2, context - 1}
    at = torch.tensor(sorted(p for p in found if 0 <= p < context))
    queries, keys = at[:, None], at[None, :]
    expected = (keys <= queries) & (keys > queries - (window or context))
    try:
        return torch.equal(torch.as_tensor(mask(0, 0, queries, keys)).expand(expected.shape), expected)
    except Exception:  # a mask that needs more than positions
        return False


def _layers(module: PreTrainedModel, config: PreTrainedConfig, calls: Calls) -> tuple[HostedLayer, ...]:
    """The layers, each of which has called attention once."""
    order = [layer for layer, _, _ in calls.shapes]
    if not order or order != list(range(len(order))):
        raise ModelError(f"its layers call attention as {shorten(order)}: not one after the other, each once")
    depth = getattr(config, "num_hidden_layers", None)
    if depth != len(order):
        raise ModelError(f"{len(order)} of its {depth} layers have attention: the others keep what is no KV")
    found: list[list[HostedProduct]] = [[] for _ in order]
    used = next((getattr(config, name) for name in PER_TOKEN if isinstance(getattr(config, name, None), int)), 1)
    for name, product in _products(module, used):
        if (layer := _layer_of(name, len(order))) is not None:
            found[layer].append(product)
    return tuple(
        HostedLayer(shape, tuple(products)) for (_, _, shape), products in zip(calls.shapes, found, strict=True)
    )


def _products(module: nn.Module, per_token: int) -> Iterator[tuple[str, HostedProduct]]:
    """Every product by the full name of its weight: linear modules, and parameters of two and three dimensions."""
    of_linears = {f"{name}.weight": weight for name, weight, _ in linears(module)}
    for name, stored in module.named_parameters():
        own = name.rpartition(".")[0 if name in of_linears else 2].rpartition(".")[2]
        weight = of_linears.get(name, stored)
        if weight.ndim == 2:
            yield name, HostedProduct(own, weight.shape[1], weight.shape[0])
        elif weight.ndim == 3:
            count, outputs, inputs = weight.shape
            yield name, HostedProduct(own, inputs, outputs, experts=count, per_token=min(per_token, count))


def _layer_of(name: str, n_layers: int) -> int | None:
    """The layer that a parameter belongs to: the first number in its name; None for the embedding and the head."""
    number = next((part for part in name.split(".") if part.isdigit()), None)
    return int(number) if number is not None and int(number) < n_layers else None

"""Reads what config.json says of a mixture of experts, by allow-list; nothing here needs torch."""

from __future__ import annotations

from umbel.errors import ModelError
from umbel.ir.experts import Experts, Router
from umbel.models.config_file import Config, flag_of, is_int, shorten, size_of

SUMS_TO_ONE = Router(normalised=True)
COUNTS = ("num_experts", "num_local_experts")
"""Names of the number of experts; which one a family's files have depends on the transformers that wrote them."""


def mixtral_experts(config: Config, n_layers: int) -> Experts:
    """All layers alike, the weights of the chosen always renormalised (Mixtral, arXiv 2401.04088)."""
    width = size_of(config, "intermediate_size")
    return _checked(Experts(_count(config), size_of(config, "num_experts_per_tok"), width, SUMS_TO_ONE))


def qwen3_moe_experts(config: Config, n_layers: int) -> Experts | None:
    """Experts in every `decoder_sparse_step`-th layer that is not one of `mlp_only_layers`; None if no layer has any
    (Qwen3, arXiv 2505.09388)."""
    step, named = size_of(config, "decoder_sparse_step", 1), config.get("mlp_only_layers") or []
    if not isinstance(named, list) or not all(is_int(i) and 0 <= i < n_layers for i in named):
        raise ModelError(f"mlp_only_layers={shorten(named)}: must be a list of layers below {n_layers}")
    dense = tuple(i for i in range(n_layers) if i in named or (i + 1) % step)
    if len(dense) == n_layers:
        return None
    width, router = size_of(config, "moe_intermediate_size"), Router(normalised=flag_of(config, "norm_topk_prob"))
    return _checked(Experts(_count(config), size_of(config, "num_experts_per_tok"), width, router, dense))


def _count(config: Config) -> int:
    stated = {config[name] for name in COUNTS if is_int(config.get(name))}
    if len(stated) > 1:
        raise ModelError(f"{' and '.join(COUNTS)} differ: {sorted(stated)}")
    return size_of(config, COUNTS[0] if config.get(COUNTS[0]) is not None else COUNTS[1])


def _checked(experts: Experts) -> Experts:
    if experts.per_token > experts.count:
        raise ModelError(f"num_experts_per_tok={experts.per_token}: there are {experts.count} experts")
    return experts

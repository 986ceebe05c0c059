"""Reads what config.json says of a mixture of experts, by allow-list; nothing here needs torch.

What is missing in a file has the value that transformers gives it, except for sizes, which must be there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from umbel.errors import ModelError
from umbel.ir.experts import ClampedGate, Experts, Router
from umbel.models.config_file import Config, flag_of, is_int, number_of, shorten, size_of

COUNTS = ("num_experts", "num_local_experts")
"""Names of the number of experts; which one a family's files have depends on the transformers that wrote them."""
ROUTED = (*COUNTS, "n_routed_experts")
PER_TOKEN = "num_experts_per_tok"
SUMS_TO_ONE = Router(normalised=True)


def mixtral_experts(config: Config, n_layers: int) -> Experts:
    """All layers alike, with shares of a softmax over the chosen (Mixtral, arXiv 2401.04088; Granite's mixtures)."""
    return _experts(config, "intermediate_size", SUMS_TO_ONE)


def qwen3_moe_experts(config: Config, n_layers: int) -> Experts | None:
    """Experts in every `decoder_sparse_step`-th layer that is not one of `mlp_only_layers`; None if no layer has any
    (Qwen3, arXiv 2505.09388)."""
    step, named = size_of(config, "decoder_sparse_step", 1), config.get("mlp_only_layers") or []
    if not isinstance(named, list) or not all(is_int(i) and 0 <= i < n_layers for i in named):
        raise ModelError(f"mlp_only_layers={shorten(named)}: must be a list of layers below {n_layers}")
    sparse = (i for i in range(n_layers) if i not in named and (i + 1) % step == 0)
    return _in_layers(_experts(config, "moe_intermediate_size", _as_asked(config)), sparse, n_layers)


def qwen2_moe_experts(config: Config, n_layers: int) -> Experts | None:
    """Those of Qwen3, and a shared one with a gate of its own (Qwen1.5-MoE)."""
    experts, width = qwen3_moe_experts(config, n_layers), size_of(config, "shared_expert_intermediate_size")
    return experts and replace(experts, shared_width=width, shared_gate=True)


def olmoe_experts(config: Config, n_layers: int) -> Experts:
    """All layers alike, with shares of a softmax over all experts (OLMoE, arXiv 2409.02060)."""
    return _experts(config, "intermediate_size", _as_asked(config))


def granite_shared_experts(config: Config, n_layers: int) -> Experts:
    """Those of Mixtral, maybe with a shared one (Granite 3 and 4)."""
    return replace(
        mixtral_experts(config, n_layers), shared_width=size_of(config, "shared_intermediate_size", 0, low=0)
    )


def ernie_experts(config: Config, n_layers: int) -> Experts | None:
    """Softmax scores, corrected for the choice; experts in every `moe_layer_interval`-th layer of a range, shared ones
    beside them (ERNIE 4.5)."""
    router = Router(
        normalised=True,
        least_sum=number_of(config, "moe_norm_min", 1e-12, low=0.0, high=1.0),
        corrected=True,
        in_float32=True,
    )
    found = _experts(config, "moe_intermediate_size", router, (*COUNTS, "moe_num_experts"), (PER_TOKEN, "moe_k"))
    first, last = size_of(config, "moe_layer_start_index", 1, low=0), size_of(config, "moe_layer_end_index", -1, low=-1)
    interval = size_of(config, "moe_layer_interval", 1)
    sparse = (i for i in range(first, n_layers if last == -1 else last + 1) if (i + 1) % interval == 0)
    n_shared = size_of(config, "moe_num_shared_experts", 2, low=0)
    shared = {"shared_width": n_shared * found.width, "shared_bias": n_shared > 0 and flag_of(config, "use_bias")}
    return _in_layers(replace(found, **shared), sparse, n_layers)


def glm4_moe_experts(config: Config, n_layers: int) -> Experts | None:
    """GLM-4.5: DeepSeek-V3's router, in one group unless the file has more."""
    return _sigmoid_experts(config, n_layers, normalised=True, first=1)


def deepseek_v3_experts(config: Config, n_layers: int) -> Experts | None:
    """DeepSeek-V3 (2412.19437): eight groups, of which four are used, and three MLPs, where the file has nothing."""
    stated = {"n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5}
    whole = stated | {key: value for key, value in config.items() if value is not None}
    return _sigmoid_experts(whole, n_layers, normalised=True, first=3)


def deepseek_v2_experts(config: Config, n_layers: int) -> Experts | None:
    """DeepSeek-V2 (2405.04434): softmax scores as they fall; a group is as good as its best expert."""
    scale = number_of(config, "routed_scaling_factor", 1.0, low=0.0, high=1e6)
    found = _experts(config, "moe_intermediate_size", Router(scale=scale, in_float32=True), ROUTED)
    method = config.get("topk_method") or "greedy"
    if method not in ("greedy", "group_limited_greedy"):
        raise ModelError(f"topk_method={shorten(method)}: must be greedy or group_limited_greedy")
    grouped = found if method == "greedy" else _in_groups(found, config, best=1)
    return _behind_the_first(grouped, config, n_layers, 0)


def dots1_experts(config: Config, n_layers: int) -> Experts | None:
    """dots.llm1, likewise (arXiv 2506.05767)."""
    return _sigmoid_experts(config, n_layers, normalised=False, first=0)


def minimax_m2_experts(config: Config, n_layers: int) -> Experts:
    """Sigmoid scores, corrected for the choice, in all layers (MiniMax-M2)."""
    return _experts(config, "intermediate_size", Router("sigmoid", normalised=True, corrected=True))


def gpt_oss_experts(config: Config, n_layers: int) -> Experts:
    """Biases everywhere and a gate that is cut (gpt-oss, arXiv 2508.10925)."""
    alpha = number_of(config, "swiglu_alpha", 1.702, low=0.0, high=1e3)
    gate = ClampedGate(alpha, number_of(config, "swiglu_limit", 7.0, low=0.0, high=1e6))
    return replace(_experts(config, "intermediate_size", replace(SUMS_TO_ONE, biased=True)), biased=True, gate=gate)


def phimoe_experts(config: Config, n_layers: int) -> Experts:
    """Two experts, each the best of those left (Phi-3.5-MoE)."""
    noise = number_of(config, "router_jitter_noise", 0.01, low=0.0, high=1.0)
    found = _experts(config, "intermediate_size", Router("sparsemixer", band=2 * noise))
    if found.per_token != 2:
        raise ModelError(f"{PER_TOKEN}={found.per_token}: tokens of these models always have 2 experts")
    return found


def _sigmoid_experts(config: Config, n_layers: int, *, normalised: bool, first: int) -> Experts | None:
    """Sigmoid scores, corrected for the choice, in groups; shared experts, and MLPs in the first layers (DeepSeek-V3,
    arXiv 2412.19437). `normalised` and `first` (layer with experts) hold where the file has nothing."""
    router = Router(
        "sigmoid",
        normalised=flag_of(config, "norm_topk_prob", default=normalised),
        epsilon=1e-20,
        scale=number_of(config, "routed_scaling_factor", 1.0, low=0.0, high=1e6),
        corrected=True,
        in_float32=True,
    )
    found = _in_groups(_experts(config, "moe_intermediate_size", router, ROUTED), config, best=2)
    return _behind_the_first(found, config, n_layers, first)


def _behind_the_first(experts: Experts, config: Config, n_layers: int, first: int) -> Experts | None:
    """The experts in all layers but the first ones, with the shared ones beside them."""
    first = size_of(config, "first_k_dense_replace", first, low=0)
    shared = replace(experts, shared_width=size_of(config, "n_shared_experts") * experts.width)
    return _in_layers(shared, range(first, n_layers), n_layers)


def _in_groups(experts: Experts, config: Config, best: int) -> Experts:
    """The experts in the groups that a file tells of; a group is as good as its `best` best experts."""
    groups, used = size_of(config, "n_group", 1), size_of(config, "topk_group", 1)
    size, left_over = divmod(experts.count, groups)
    if left_over or used > groups or size < best:
        raise ModelError(f"n_group={groups}, topk_group={used}: no such groups of {experts.count} experts")
    if experts.per_token > used * size:
        raise ModelError(f"{PER_TOKEN}={experts.per_token}: topk_group={used} groups have {used * size} experts")
    return replace(experts, router=replace(experts.router, groups=groups, groups_used=used, group_best=best))


def _experts(
    config: Config, width: str, router: Router, counts: tuple[str, ...] = COUNTS, each: tuple[str, ...] = (PER_TOKEN,)
) -> Experts:
    """Experts in all layers, their sizes read under these names."""
    experts = Experts(_one_of(config, counts), _one_of(config, each), size_of(config, width), router)
    if experts.per_token > experts.count:
        raise ModelError(f"{PER_TOKEN}={experts.per_token}: there are {experts.count} experts")
    return experts


def _in_layers(experts: Experts, sparse: Iterable[int], n_layers: int) -> Experts | None:
    """The experts in some layers; None if these are none."""
    dense = tuple(sorted(set(range(n_layers)) - set(sparse)))
    return None if len(dense) == n_layers else replace(experts, dense_layers=dense)


def _one_of(config: Config, names: tuple[str, ...]) -> int:
    """A size that files have under one of several names, most often the last."""
    stated = {config[name] for name in names if is_int(config.get(name))}
    if len(stated) > 1:
        raise ModelError(f"{' and '.join(names)} differ: {sorted(stated)}")
    return size_of(config, next((name for name in names if config.get(name) is not None), names[-1]))


def _as_asked(config: Config) -> Router:
    """Softmax scores, which `norm_topk_prob` makes add up to 1."""
    return SUMS_TO_ONE if flag_of(config, "norm_topk_prob") else Router()

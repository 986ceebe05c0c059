"""The menu: every technique that is built in, whether it is exact, what it needs, where it lives and who found it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Technique:
    """One row. `exact`: the tokens are those of one plain request at a time; `paper` with its arXiv number."""

    family: str
    name: str
    exact: bool
    module: str
    paper: str
    needs: str = "any model, any machine"


CATALOG: tuple[Technique, ...] = (
    Technique("prefix", "the forks that pay", True, "umbel.plan.passes.grouping_price", "BatchLLM, 2412.03594"),
    Technique("prefix", "every fork", True, "umbel.plan.passes.prefix", "ChunkAttention, 2402.15220"),
    Technique("prefix", "one level (optimum)", True, "umbel.plan.passes.grouping", "BatchLLM, 2412.03594, section 4.1"),
    Technique("prefix", "one level (paper)", True, "umbel.plan.passes.grouping", "BatchLLM, 2412.03594, section 4.1"),
    Technique("dedupe", "answer once", True, "umbel.plan.passes.dedupe", "Optimizing LLM queries, 2403.05821"),
    Technique("lengths", "history", True, "umbel.cost.lengths", "Past-Future, 2507.10150"),
    Technique("order", "tree walk", True, "umbel.plan.passes.order", "BatchLLM, 2412.03594"),
    Technique("order", "decode-heavy first", True, "umbel.plan.passes.order", "BatchLLM, 2412.03594, section 4.2"),
    Technique("order", "longest first", True, "umbel.plan.passes.order", "S3, 2306.06000"),
    Technique("order", "cheapest first", True, "umbel.plan.passes.budget", "SSJF, 2404.08509", "a budget"),
    Technique("pack", "token-budget", True, "umbel.plan.passes.pack", "BatchLLM, 2412.03594, section 4.3"),
    Technique("admission", "past-future", True, "umbel.sched.policies.past_future", "Past-Future, 2507.10150"),
    Technique("admission", "headroom", True, "umbel.sched.policies.admission", "PagedAttention, 2309.06180"),
    Technique("admission", "conservative", True, "umbel.sched.policies.admission", "Past-Future, 2507.10150"),
    Technique("admission", "aggressive", True, "umbel.sched.policies.admission", "Past-Future, 2507.10150"),
    Technique("queue", "longest-prefix", True, "umbel.sched.policies.longest_prefix", "SGLang, 2312.07104"),
    Technique("policy", "chunked-prefill", True, "umbel.sched.scheduler", "SARATHI, 2308.16369"),
    Technique("policy", "recompute-preemption", True, "umbel.sched.scheduler", "PagedAttention, 2309.06180"),
    Technique("cache", "paged-kv", True, "umbel.cache.pages", "PagedAttention, 2309.06180"),
    Technique("cache", "last-reader-release", True, "umbel.cache.kv_forest", "BatchLLM, 2412.03594"),
    Technique("cache", "lru", True, "umbel.cache.kv_forest", "PagedAttention, 2309.06180"),
    Technique("sampling", "shared-prompt-samples", True, "umbel.cache.kv_forest", "PagedAttention, 2309.06180"),
    Technique("linear", "int8", False, "umbel.linear.int8", "ZeroQuant, 2206.01861", "a CPU and compiled kernels"),
    # Lossy where floats are rounded on loading; a checkpoint in int4 gives exactly the tokens of its own weights.
    Technique(
        "linear", "int4", False, "umbel.linear.int4", "GPTQ, 2210.17323; AWQ, 2306.00978", "saves memory on GPUs"
    ),
    Technique(
        "linear", "fp8", False, "umbel.linear.fp8", "FP8 Formats, 2209.05433", "fast on GPUs with fp8 (Ada, Hopper)"
    ),
    Technique(
        "experts", "one-launch", True, "umbel.linear.experts", "MegaBlocks, 2211.15841", "experts, a GPU and Triton"
    ),
    Technique("kv", "fp8", False, "umbel.kv.fp8", "FP8 Formats, 2209.05433", "fast on GPUs with fp8 (Ada, Hopper)"),
    Technique("parallel", "tensor", True, "umbel.models.shards", "Megatron-LM, 1909.08053", "heads that divide evenly"),
    Technique(
        "parallel", "data", True, "umbel.plan.passes.place", "Preble, 2407.00023", "a device or threads for each"
    ),
    Technique("loop", "a step ahead", True, "umbel.runner.ahead", "NanoFlow, 2408.12757", "a GPU"),
    Technique("attention", "one-launch", True, "umbel.attention.triton", "Hydragen, 2402.05099", "a GPU and Triton"),
    Technique(
        "attention", "flashinfer", True, "umbel.attention.flashinfer", "FlashInfer, 2501.01005", "a GPU and FlashInfer"
    ),
    Technique("attention", "shared-prefix-merge", True, "umbel.attention", "Hydragen, 2402.05099"),
)

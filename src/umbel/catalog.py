"""The menu: every technique that is built in, whether it is exact, what it needs, where it lives and who found it.

What a job says of itself ("all exact", "lossy: linear fp8") is read from the rows that its settings take, so every
value of an option that names a technique has its row here (tests/house/test_catalog.py).
"""

from __future__ import annotations

from dataclasses import dataclass

WITHOUT_OPTION = ("planner", "machine", "always", "simulation")


@dataclass(frozen=True, slots=True)
class Technique:
    """One row. `exact`: the tokens are those of one plain request at a time; `module` is the one below `umbel` that has
    it; `paper` with its arXiv number.

    `by` says what takes it: the value of an option of config.EngineConfig ("linear=fp8"; of a number, any value of at
    least that), the planner in the pass that has the family's name, the machine where it has what is needed, nothing
    ("always"), or nothing but `umbel sim` ("simulation"). What is lossy is taken by an option only.
    """

    family: str
    name: str
    exact: bool
    module: str
    paper: str
    needs: str = "any model, any machine"
    by: str = "planner"

    @property
    def option(self) -> tuple[str, str]:
        """The option that takes it and the value, as texts; two empty ones where none does."""
        name, _, value = self.by.partition("=")
        return (name, value) if value else ("", "")

    def taken_by(self, settings: object) -> bool:
        """Whether these settings (an EngineConfig) take it by an option."""
        name, value = self.option
        asked = getattr(settings, name) if name else ""
        return asked >= int(value) if isinstance(asked, int) else bool(name) and asked == value


CATALOG: tuple[Technique, ...] = (
    Technique(
        "prefix", "the forks that pay", True, "plan.passes.grouping_price", "BatchLLM, 2412.03594", by="prefix=forest"
    ),
    Technique("prefix", "every fork", True, "plan.passes.prefix", "ChunkAttention, 2402.15220", by="prefix=every-fork"),
    Technique(
        "prefix",
        "one level (optimum)",
        True,
        "plan.passes.grouping",
        "BatchLLM, 2412.03594 §4.1",
        by="prefix=one-level",
    ),
    Technique(
        "prefix", "one level (paper)", True, "plan.passes.grouping", "BatchLLM, 2412.03594 §4.1", by="prefix=paper"
    ),
    Technique("dedupe", "answer once", True, "plan.passes.dedupe", "Optimizing LLM queries, 2403.05821"),
    Technique("lengths", "history", True, "cost.lengths", "Past-Future, 2507.10150"),
    Technique("order", "tree walk", True, "plan.passes.order", "BatchLLM, 2412.03594"),
    Technique("order", "decode-heavy first", True, "plan.passes.order", "BatchLLM, 2412.03594 §4.2"),
    Technique("order", "longest first inside", True, "plan.passes.order", "S3, 2306.06000"),
    Technique("order", "longest first", True, "plan.passes.order", "S3, 2306.06000"),
    Technique("order", "cheapest first", True, "plan.passes.budget", "SSJF, 2404.08509", "a budget"),
    Technique("pack", "token-budget", True, "plan.passes.pack", "BatchLLM, 2412.03594 §4.3"),
    Technique(
        "admission",
        "past-future",
        True,
        "sched.policies.past_future",
        "Past-Future, 2507.10150",
        by="admission=past-future",
    ),
    Technique(
        "admission", "headroom", True, "sched.policies.admission", "PagedAttention, 2309.06180", by="admission=headroom"
    ),
    Technique(
        "admission",
        "conservative",
        True,
        "sched.policies.admission",
        "Past-Future, 2507.10150",
        by="admission=conservative",
    ),
    Technique(
        "admission",
        "aggressive",
        True,
        "sched.policies.admission",
        "Past-Future, 2507.10150",
        by="admission=aggressive",
    ),
    Technique("queue", "longest-prefix", True, "sched.policies.longest_prefix", "SGLang, 2312.07104", by="simulation"),
    Technique("policy", "chunked-prefill", True, "sched.scheduler", "SARATHI, 2308.16369", by="always"),
    Technique("policy", "recompute-preemption", True, "sched.scheduler", "PagedAttention, 2309.06180", by="always"),
    Technique("cache", "paged-kv", True, "cache.pages", "PagedAttention, 2309.06180", by="always"),
    Technique("cache", "last-reader-release", True, "cache.kv_forest", "BatchLLM, 2412.03594", by="always"),
    Technique("cache", "lru", True, "cache.kv_forest", "PagedAttention, 2309.06180", by="simulation"),
    Technique("sampling", "shared-prompt-samples", True, "cache.kv_forest", "PagedAttention, 2309.06180", by="always"),
    Technique(
        "linear", "int8", False, "linear.int8", "ZeroQuant, 2206.01861", "a CPU and compiled kernels", by="linear=int8"
    ),
    # Lossy where floats are rounded on loading; a checkpoint in int4 gives exactly the tokens of its own weights.
    Technique(
        "linear",
        "int4",
        False,
        "linear.int4",
        "GPTQ, 2210.17323; AWQ, 2306.00978",
        "saves memory on GPUs",
        by="linear=int4",
    ),
    Technique(
        "linear",
        "fp8",
        False,
        "linear.fp8",
        "FP8 Formats, 2209.05433",
        "fast on GPUs with fp8 (Ada, Hopper)",
        by="linear=fp8",
    ),
    Technique(
        "experts",
        "one-launch",
        True,
        "linear.experts",
        "MegaBlocks, 2211.15841",
        "experts, a GPU and Triton",
        by="machine",
    ),
    Technique(
        "kv",
        "fp8",
        False,
        "kv.fp8",
        "FP8 Formats, 2209.05433",
        "fast on GPUs with fp8 (Ada, Hopper)",
        by="kv_cache_dtype=fp8",
    ),
    Technique(
        "parallel",
        "tensor",
        True,
        "models.shards",
        "Megatron-LM, 1909.08053",
        "heads that divide evenly",
        by="tensor_parallel_size=2",
    ),
    Technique(
        "parallel",
        "data",
        True,
        "plan.passes.place",
        "Preble, 2407.00023",
        "a device or threads for each",
        by="data_parallel_size=2",
    ),
    Technique("loop", "a step ahead", True, "runner.ahead", "NanoFlow, 2408.12757", "a GPU", by="machine"),
    Technique(
        "attention",
        "one-launch",
        True,
        "attention.triton",
        "Hydragen, 2402.05099",
        "a GPU and Triton",
        by="attention_backend=triton",
    ),
    Technique(
        "attention",
        "flashinfer",
        True,
        "attention.flashinfer",
        "FlashInfer, 2501.01005",
        "a GPU and FlashInfer",
        by="attention_backend=flashinfer",
    ),
    Technique(
        "attention", "shared-prefix-merge", True, "attention", "Hydragen, 2402.05099", by="attention_backend=torch"
    ),
)


def lossy(settings: object) -> tuple[Technique, ...]:
    """The techniques that these settings (an EngineConfig) take and that may change answers."""
    return tuple(row for row in CATALOG if not row.exact and row.taken_by(settings))


def at(option: str, value: str) -> Technique | None:
    """The technique that the value of an option takes; None where it takes none."""
    return next((row for row in CATALOG if row.option == (option, value)), None)

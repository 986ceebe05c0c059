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
    Technique("prefix", "forest", True, "umbel.plan.passes.prefix", "BatchLLM, 2412.03594; ChunkAttention, 2402.15220"),
    Technique("order", "tree-walk", True, "umbel.plan.passes.order", "BatchLLM, 2412.03594"),
    Technique("pack", "token-budget", True, "umbel.plan.passes.pack", "BatchLLM, 2412.03594, section 4.3"),
    Technique("policy", "chunked-prefill", True, "umbel.sched.scheduler", "SARATHI, 2308.16369"),
    Technique("policy", "recompute-preemption", True, "umbel.sched.scheduler", "PagedAttention, 2309.06180"),
    Technique("cache", "paged-kv", True, "umbel.cache.pages", "PagedAttention, 2309.06180"),
    Technique("cache", "last-reader-release", True, "umbel.cache.kv_forest", "BatchLLM, 2412.03594"),
    Technique("sampling", "shared-prompt-samples", True, "umbel.cache.kv_forest", "PagedAttention, 2309.06180"),
    Technique("attention", "shared-prefix-merge", True, "umbel.attention", "Hydragen, 2402.05099"),
)

"""Techniques of the planner: what is shared, answered once, ordered and packed."""

from __future__ import annotations

from umbel.technique import Technique

PLANNING: tuple[Technique, ...] = (
    Technique(
        "prefix",
        "the forks that pay",
        True,
        "umbel.plan.forest.rules:paying_forks",
        "BatchLLM, 2412.03594",
        by="prefix=forest",
    ),
    Technique(
        "prefix",
        "every fork",
        True,
        "umbel.plan.forest.rules:every_fork",
        "ChunkAttention, 2402.15220",
        by="prefix=every-fork",
    ),
    Technique(
        "prefix",
        "one level (optimum)",
        True,
        "umbel.plan.forest.rules:best_groups",
        "BatchLLM, 2412.03594 §4.1",
        by="prefix=one-level",
    ),
    Technique(
        "prefix",
        "one level (paper)",
        True,
        "umbel.plan.forest.rules:paper_groups",
        "BatchLLM, 2412.03594 §4.1",
        by="prefix=paper",
    ),
    Technique(
        "dedupe",
        "answer once",
        True,
        "umbel.plan.passes.dedupe:answer_once",
        "Optimizing LLM queries, 2403.05821",
        by="planner",
    ),
    Technique("lengths", "history", True, "umbel.cost.lengths:LengthBook", "Past-Future, 2507.10150", by="planner"),
    Technique(
        "order",
        "tree walk",
        True,
        "umbel.plan.passes.order:order_rows",
        "BatchLLM, 2412.03594",
        by="planner",
        says="depth-first over the forest: a shared run is released as soon as its last row is done",
    ),
    Technique(
        "order",
        "decode-heavy first",
        True,
        "umbel.plan.passes.order:other_orders",
        "BatchLLM, 2412.03594 §4.2",
        by="planner",
        says="most output for its prompt tokens first, depth-first: decodes fill the steps of prompts",
    ),
    Technique(
        "order",
        "longest first inside",
        True,
        "umbel.plan.passes.order:other_orders",
        "S3, 2306.06000",
        by="planner",
        says="depth-first, in each group the longest answers first: none is left alone at its end",
    ),
    Technique(
        "order",
        "longest first",
        True,
        "umbel.plan.passes.order:other_orders",
        "S3, 2306.06000",
        by="planner",
        says="depth-first, the longest answers first at every level: none is left alone at the end",
    ),
    Technique("order", "cheapest first", True, "umbel.plan.deal.fit:fit", "SSJF, 2404.08509", "a budget", by="planner"),
    Technique(
        "pack", "token-budget", True, "umbel.plan.passes.pack:choose_chunk", "BatchLLM, 2412.03594 §4.3", by="planner"
    ),
)

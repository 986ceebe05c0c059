"""Techniques of the loop: who starts, waits, steps back and stays, who drafts, and who watches what is drawn."""

from __future__ import annotations

from umbel.technique import Technique

SCHEDULING: tuple[Technique, ...] = (
    Technique(
        "admission",
        "past-future",
        True,
        "umbel.sched.policies.past_future:PastFuture",
        "Past-Future, 2507.10150",
        says="a row starts when the fullest step to come overflows with probability {overflow:g} at most; expected "
        "ceiling {ceiling}",
        why_not="starts rows by the peak that is predicted",
    ),
    Technique(
        "admission",
        "headroom",
        True,
        "umbel.sched.policies.headroom:Headroom",
        "PagedAttention, 2309.06180",
        says="a row starts when all running rows could still write a little more; one that outgrows this is evicted",
        why_not="keeps the same growth free for every row, whatever its length",
    ),
    Technique(
        "admission",
        "conservative",
        True,
        "umbel.sched.policies.conservative:Conservative",
        "Past-Future, 2507.10150",
        says="a row starts when all running rows could reach their limits; none is ever evicted",
        why_not="keeps room for every row's limit, most of which is never used",
    ),
    Technique(
        "admission",
        "aggressive",
        True,
        "umbel.sched.policies.aggressive:Aggressive",
        "Past-Future, 2507.10150",
        says="a row starts when its prompt fits; when the pool overflows, the last one is evicted",
        why_not="fills the pool, then steps back and computes again, which this price leaves out",
    ),
    Technique("queue", "plan", True, "umbel.sched.waiting:Waiting", "BatchLLM, 2412.03594", by="policy"),
    Technique(
        "queue",
        "longest-prefix",
        True,
        "umbel.sched.policies.longest_prefix:LongestPrefix",
        "SGLang, 2312.07104",
        by="policy",
        why_not="looks for sharing in the cache; the walk of the forest has it by construction; umbel sim plays it",
    ),
    Technique(
        "victim",
        "last-in-plan",
        True,
        "umbel.sched.policies.victim:LastInPlan",
        "PagedAttention, 2309.06180",
        by="policy",
    ),
    Technique(
        "policy", "chunked-prefill", True, "umbel.sched.phases.prompts:Prompts", "SARATHI, 2308.16369", by="always"
    ),
    Technique("cache", "paged-kv", True, "umbel.cache.pages:PagePool", "PagedAttention, 2309.06180", by="always"),
    Technique("keep", "last-reader", True, "umbel.cache.keep:LastReader", "BatchLLM, 2412.03594"),
    Technique(
        "keep",
        "lru",
        True,
        "umbel.cache.keep:LeastRecent",
        "PagedAttention, 2309.06180",
        why_not="keeps what was used last; the plan keeps what is still to be read; umbel sim plays it",
    ),
    Technique(
        "sampling",
        "shared-prompt-samples",
        True,
        "umbel.cache.tree:KVTree",
        "PagedAttention, 2309.06180",
        by="always",
    ),
    Technique("drafter", "lookup", True, "umbel.spec.lookup:LookupDrafter", "SuffixDecoding, 2411.04975"),
    Technique("drafter", "batch", True, "umbel.spec.batch:BatchDrafter", "SuffixDecoding, 2411.04975"),
    Technique("drafter", "ngram", True, "umbel.spec.ngram:NGrams", "LLMA, 2304.04487"),
    Technique(
        "drafter", "model", True, "umbel.engine.draft_model:ModelDrafter", "Leviathan, 2211.17192", argument="PATH"
    ),
    # The first ones see the tokens of a step first.
    Technique("watcher", "min-tokens", True, "umbel.engine.watch.min_tokens:MinTokens", by="always"),
    Technique("watcher", "allowed-tokens", True, "umbel.engine.watch.allowed_tokens:AllowedTokens", by="always"),
    Technique("watcher", "bad-words", True, "umbel.engine.watch.bad_words:BadWords", by="always"),
    Technique("watcher", "endings", True, "umbel.engine.watch.endings:Endings", by="always"),
    Technique("watcher", "loops", True, "umbel.engine.watch.loops:Loops", by="always"),
    Technique("watcher", "stop-strings", True, "umbel.engine.watch.stop_strings:StopStrings", by="always"),
    Technique("watcher", "logit-bias", True, "umbel.engine.watch.logit_changes:LogitBias", by="always"),
    Technique("watcher", "penalties", True, "umbel.engine.watch.logit_changes:Penalties", by="always"),
    Technique("watcher", "logprobs", True, "umbel.engine.watch.logprobs:Logprobs", by="always"),
    Technique(
        "parallel",
        "tensor",
        True,
        "umbel.models.shards:build_shard",
        "Megatron-LM, 1909.08053",
        "heads that divide evenly",
        by="tensor_parallel_size=2",
    ),
    Technique(
        "parallel",
        "data",
        True,
        "umbel.plan.deal.placement:place",
        "Preble, 2407.00023",
        "a device or threads for each",
        by="data_parallel_size=2",
    ),
    Technique(
        "loop",
        "a step ahead",
        True,
        "umbel.runner.ahead:AheadTorchRunner",
        "NanoFlow, 2408.12757",
        "a GPU",
        by="machine",
    ),
)

"""What a run has cost so far: counters that the report holds against the plan."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Stats:
    """Totals of one engine, in tokens unless the name says otherwise; live, so progress can be read from it.

    `prompt_tokens` counts every finished row's prompt as if nothing was shared; `planned_prompt_tokens` the distinct
    prompt tokens of all that was asked to run; `computed_prompt_tokens` the prompt tokens that went through the model
    for the first time; `recomputed_tokens` those that went through again, because their KV had been given up.
    `evicted_rows` are rows of which a sample was preempted at least once; `kv_token_steps` are the tokens' worth of
    pages in use, summed over the steps: divided by `steps`, the mean occupancy of the pool.
    """

    prompt_tokens: int = 0
    planned_prompt_tokens: int = 0
    computed_prompt_tokens: int = 0
    recomputed_tokens: int = 0
    output_tokens: int = 0
    preemptions: int = 0
    steps: int = 0
    kv_peak_tokens: int = 0
    kv_tokens_read: int = 0
    rows_done: int = 0
    evicted_rows: int = 0
    kv_token_steps: int = 0

    def plus(self, other: Stats) -> Stats:
        """Totals of both; the KV peak is the higher one."""
        totals = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Stats)}
        return Stats(**{**totals, "kv_peak_tokens": max(self.kv_peak_tokens, other.kv_peak_tokens)})

"""Counters of a run, which the report compares with the plan."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Stats:
    """Totals of one engine, in tokens unless the name says otherwise; live, so that progress can be read from it.

    `prompt_tokens`: prompts of finished rows, each counted as if nothing was shared.
    `planned_prompt_tokens`: distinct prompt tokens of all rows that were to run.
    `computed_prompt_tokens`: prompt tokens that went through the model for the first time.
    `recomputed_tokens`: tokens that went through it again, because their KV had been given up.
    `kv_peak_tokens`: the most tokens that the pages in use could hold.
    `evicted_rows`: rows of which a sample was preempted at least once.
    `kv_token_steps`: tokens that the pages in use hold, summed over the steps; divided by `steps`, the pool's mean
        occupancy.
    `drafted_tokens`: proposed tokens that steps checked.
    `accepted_tokens`: those of them that are part of answers.
    `forced_tokens`: tokens of answers that their forms left no choice of, computed several in a step.
    `adapter_loads`: how often an adapter was read from its files.
    `keys_read`, `keys_whole`: where selectors pick, the keys that tokens read in a layer on average, and those that
        they would read by themselves.
    `layers_passed`, `layers_whole`: where a flow lets rows out, tokens times layers passed, and times all.
    `left_out_tokens`: prompt tokens that a draft model left out.
    `read_prompt_tokens`: prompt tokens whose KV was read from `kv_dir`, instead of being computed.
    `copied_prompt_tokens`: prompt tokens of documents whose KV was copied from where they were computed first.
    `lost_processes`: replicas that ended, or hung, while others went on.
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
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    forced_tokens: int = 0
    adapter_loads: int = 0
    keys_read: int = 0
    keys_whole: int = 0
    layers_passed: int = 0
    layers_whole: int = 0
    left_out_tokens: int = 0
    read_prompt_tokens: int = 0
    copied_prompt_tokens: int = 0
    lost_processes: int = 0

    def plus(self, other: Stats) -> Stats:
        """Totals of both; the KV peak is the higher one."""
        totals = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Stats)}
        return Stats(**{**totals, "kv_peak_tokens": max(self.kv_peak_tokens, other.kv_peak_tokens)})


@dataclass(frozen=True, slots=True)
class Left:
    """What is left to do: output tokens expected, prompt tokens, and seconds (None: too early to say)."""

    output_tokens: float = 0.0
    prompt_tokens: int = 0
    seconds: float | None = None

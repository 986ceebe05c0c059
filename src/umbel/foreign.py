"""Options of other engines that are not taken here, each with what there is instead, in braces where it is an option of
ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from umbel.errors import UsageError

_OURS = re.compile(r"\{(\w+)\}")
_DERIVED = "rows start when the memory they will need is there, and a step takes as many as it has room for"
_POOL = "the KV pool is what the plan derives of the free memory; {kv_tokens} sets its size"
_CONTEXT = "the context is the model's own, and costs nothing while it is unused; {max_tokens} limits answers"
_NO_CODE = "code that comes with a model is never run"
_SHARED = "prompts that begin alike are always computed once; {prefix} none turns it off"
_FILE_SAYS = "the input says it: each OpenAI batch line has its url"
_WEIGHTS = "read from the model's config.json; {linear} chooses what products are made in"
_INSIDE = "how answers are computed is no part of what callers see"
_ADAPTERS = "{lora} NAME=DIR gives an adapter of any rank, and any number of them; rows name theirs by lora"
_HUB = "give a directory, or a hub id: the Hugging Face cache (HF_HOME) is read"

FOREIGN: Mapping[str, str] = MappingProxyType(
    {
        "max_num_seqs": _DERIVED + "; {kv_tokens} sets the memory, {chunk} the tokens of a step",
        "max_running_requests": _DERIVED + "; {kv_tokens} sets the memory, {chunk} the tokens of a step",
        "max_concurrency": _DERIVED,
        "batch_size": _DERIVED + "; {chunk} is the most tokens that a step computes",
        "gpu_memory_utilization": _POOL,
        "mem_fraction_static": _POOL,
        "kv_cache_memory_bytes": "{kv_tokens} sets the size of the KV pool in tokens",
        "num_gpu_blocks_override": "{kv_tokens} sets the size of the KV pool in tokens",
        "swap_space": "rows that step back are computed again, with the same result; nothing is swapped",
        "cpu_offload_gb": "weights stay on the device",
        "max_model_len": _CONTEXT,
        "context_length": _CONTEXT,
        "enable_prefix_caching": _SHARED,
        "no_enable_prefix_caching": "{prefix} none turns sharing off",
        "enable_chunked_prefill": "prompts are always computed in chunks; {chunk} is the most tokens of a step",
        "long_prefill_token_threshold": "prompts are always computed in chunks; {chunk} is the most tokens of a step",
        "schedule_policy": "{admission} says when rows start; the plan orders them",
        "scheduling_policy": "{admission} says when rows start; the plan orders them",
        "override_generation_config": "rows have their own parameters; {temperature} and the like are for the others",
        "logprobs_mode": "log-probabilities are of the logits as the model gives them (raw_logprobs)",
        "max_logprobs": "a row may ask for 20 log-probabilities, or those of 128 logprob_token_ids",
        "logits_processors": "code of callers does not run in steps: {watchers} names those of installed packages",
        "pooler_config": "PoolingParams(pooling_type=..., use_activation=...) says how vectors are made",
        "kv_transfer_config": _INSIDE,
        "enable_sleep_mode": "close() gives the memory back, and a new LLM takes it again",
        "max_loras": _ADAPTERS,
        "max_lora_rank": _ADAPTERS,
        "max_cpu_loras": _ADAPTERS,
        "fully_sharded_loras": _ADAPTERS,
        "lora_dtype": "adapters are computed in the model's dtype",
        "enforce_eager": "answers do not depend on it, so there is no switch",
        "compilation_config": "answers do not depend on it, so there is no switch",
        "speculative_config": "{speculate} names who proposes tokens",
        "speculative_model": "{speculate} names who proposes tokens",
        "num_speculative_tokens": "how many tokens are proposed follows from their price; {speculate} names who does",
        "quantization": _WEIGHTS,
        "trust_remote_code": _NO_CODE,
        "tokenizer_revision": _HUB,
        "task": "models give answers, embeddings or classes: generate, pooling, embed or classify",
        "limit_mm_per_prompt": "images and audio are not supported",
        "tokenizer_mode": "the tokenizer is the model's own",
        "skip_tokenizer_init": "rows of token ids need no tokenizer, and then none is loaded",
        "revision": _HUB,
        "download_dir": _HUB,
        "hf_token": _HUB,
        "hf_overrides": "the model is what its config.json says: change a copy of it",
        "chat_template": "the template is the model's own: change a copy of its directory",
        "pipeline_parallel_size": "{tensor_parallel_size} cuts each layer; {data_parallel_size} takes replicas",
        "enable_lora": _ADAPTERS,
        "best_of": "{n} gives so many answers a row",
        "top_logprobs": "{logprobs} K gives the K most likely tokens of each place",
        "echo": "{prompt_logprobs} K scores the prompt; OpenAI completions may have echo in their body",
        "response_format": "{json_schema} FILE holds answers to a schema; rows may have response_format of their own",
        "guided_json": "{json_schema} FILE holds answers to a schema",
        "guided_regex": "{regex} holds answers to a regular expression",
        "guided_grammar": "{grammar} FILE holds answers to a grammar",
        "guided_choice": "{choices} a,b,c gives each row the most likely of some labels",
        "enable_auto_tool_choice": "{tool_call_parser} NAME reads tool calls wherever a row has tools",
        "completion_window": "{deadline} 2h stops in time; the same command goes on later",
        "endpoint": _FILE_SAYS,
        "url": _FILE_SAYS,
        "disable_log_requests": "{quiet} shows warnings and errors only",
        "disable_log_stats": "{quiet} shows warnings and errors only",
        "port": "umbel serve listens; umbel run takes a file",
        "host": "umbel serve listens; umbel run takes a file",
        "use_tqdm": "progress is shown by itself; {quiet} turns it off",
        "disable_tqdm": "progress is shown by itself; {quiet} turns it off",
        "checkpoint": "finished rows are kept in OUTPUT.umbel as they come: the same command continues",
        "continue": "the same command continues an earlier run by itself",
        "restart": "the same command continues an earlier run by itself; see --help for what forgets one",
        "force": "the same command continues an earlier run by itself; see --help for what forgets one",
        "limit": "there is no limit of rows: head -n writes a shorter file",
    }
)

OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {"max_num_batched_tokens": "chunk", "block_size": "page_size", "lora_modules": "lora"}
)
"""Options of ours under vLLM's names."""
NEUTRAL: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "allowed_local_media_path": ("",),
        "async_scheduling": (True, False),
        "config_format": ("auto",),
        "code_revision": (),
        "convert": ("auto", "none", "embed"),
        "cpu_offload_gb": (0,),
        "disable_custom_all_reduce": (True, False),
        "disable_log_stats": (True, False),
        "distributed_executor_backend": ("mp", "uni"),
        "enable_chunked_prefill": (True,),
        "enable_lora": (True, False),
        "fully_sharded_loras": (False,),
        "lora_dtype": ("auto",),
        "enable_prefix_caching": (True,),
        "enforce_eager": (True, False),
        "enable_expert_parallel": (False,),
        "enable_return_routed_experts": (False,),
        "enable_sleep_mode": (False,),
        "calculate_kv_scales": (False,),
        "disable_cascade_attn": (True, False),
        "disable_sliding_window": (False,),
        "allowed_media_domains": ([],),
        "attention_config": ({},),
        "compilation_config": ({}, 0),
        "ignore_patterns": (),
        "logprobs_mode": ("raw_logprobs",),
        "max_logprobs": (20,),
        "max_seq_len_to_capture": (),
        "model_loader_extra_config": ({},),
        "override_generation_config": ({},),
        "prefix_caching_hash_algo": ("sha256", "builtin", "xxhash"),
        "profiler_config": (),
        "structured_outputs_config": (),
        "gpu_memory_utilization": (0.9, 0.92),
        "hf_overrides": ({},),
        "hf_token": (False,),
        "limit_mm_per_prompt": ({},),
        "logits_processors": ([],),
        "mm_processor_kwargs": ({},),
        "pipeline_parallel_size": (1,),
        "served_model_name": (),
        "skip_tokenizer_init": (False,),
        "swap_space": (0, 4),
        "task": ("auto", "generate", "pooling", "embed", "classify"),
        "tokenizer": (),
        "tokenizer_mode": ("auto",),
        "trust_remote_code": (False,),
    }
)
"""Values of vLLM's options for an engine that ask for nothing, or for its default there; None does so for each."""
_LIMITS = ("max_loras", "max_lora_rank", "max_cpu_loras")  # of what has none here
METHODS: Mapping[str, str] = MappingProxyType(
    {
        "apply_model": _INSIDE,
        "beam_search": "beams are not supported: n answers of a prompt are sampled, SamplingParams(n=4)",
        "collective_rpc": _INSIDE,
        "enqueue": "a session takes prompts while others run: llm.session()",
        "get_metrics": "stats() has the totals",
        "llm_engine": _INSIDE,
        "reset_mm_cache": "nothing is kept between calls",
        "reset_prefix_cache": "nothing is kept between calls",
        "reward": "classify gives what a head for one class says, encode its number",
        "set_tokenizer": "the tokenizer is the model's own",
        "sleep": "close() gives the memory back, and a new LLM takes it again",
        "start_profile": "LLM(profile=...) records from the beginning, umbel run --profile too",
        "stop_profile": "LLM(profile=...) records from the beginning, umbel run --profile too",
        "wait_for_completion": "a session takes prompts while others run: llm.session()",
        "wake_up": "close() gives the memory back, and a new LLM takes it again",
    }
)
"""Attributes of vLLM's LLM that there are not, each with what there is instead."""


def understood(model: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Options for an engine without those of vLLM that ask for nothing, and with ours for those of another name. Raises
    UsageError for an option that is given under both names, and for one that asks for what there is not, with what
    there is instead."""
    found = {
        name: value for name, value in options.items() if (name, value) not in (("seed", None), ("tokenizer", model))
    }
    if found.get("dtype") in ("half", "float16"):
        raise UsageError(f"dtype={found['dtype']!r}: nothing is computed in float16; 'bfloat16' takes as little memory")
    for name in found.keys() - defaults.keys():
        value, ours, answer = found.pop(name), OTHER_NAMES.get(name), instead(name)
        if ours is not None:
            if found.get(ours, defaults[ours]) != defaults[ours]:
                raise UsageError(f"{name} and {ours} are one option: give one of them")
            found[ours] = defaults[ours] if value is None else value
        elif _asks_for_nothing(name, value, known=answer is not None or name in NEUTRAL):
            continue
        elif answer is not None:
            raise UsageError(f"no option {name!r}: {answer}")
        elif name in NEUTRAL:
            raise UsageError(f"{name}={value!r}: is not supported; leave it out")
        else:
            found[name] = value  # which is a slip
    return found


def _asks_for_nothing(name: str, value: object, *, known: bool) -> bool:
    if name in _LIMITS and type(value) is int and value >= 1:
        return True
    return known and (value is None or any(type(value) is type(v) and value == v for v in NEUTRAL.get(name, ())))


def instead(name: str, spelled: Callable[[str], str] = str) -> str | None:
    """What there is instead of an option of another engine, None for a name that none has. `spelled` writes the names
    of our options, which are given to it as Python has them."""
    text = FOREIGN.get(name)
    return None if text is None else _OURS.sub(lambda found: spelled(found[1]), text)

"""Options of other engines that are not taken here, each with what there is instead, in braces where it is an option of
ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

_OURS = re.compile(r"\{(\w+)\}")
_DERIVED = "rows start when the memory they will need is there, and a step takes as many as it has room for"
_POOL = "the KV pool is what the plan derives of the free memory; {kv_tokens} sets its size"
_CONTEXT = "the context is the model's own, and costs nothing while it is unused; {max_tokens} limits answers"
_PENALTY = "penalties are not applied yet; a row that asks for one is refused by name"
_NO_CODE = "code that comes with a model is never run"
_SHARED = "prompts that begin alike are always computed once; {prefix} none turns it off"
_FILE_SAYS = "the input says it: each OpenAI batch line has its url"
_WEIGHTS = "read from the model's config.json; {linear} chooses what products are made in"
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
        "enforce_eager": "answers do not depend on it, so there is no switch",
        "compilation_config": "answers do not depend on it, so there is no switch",
        "speculative_config": "{speculate} names who proposes tokens",
        "speculative_model": "{speculate} names who proposes tokens",
        "num_speculative_tokens": "how many tokens are proposed follows from their price; {speculate} names who does",
        "quantization": _WEIGHTS,
        "trust_remote_code": _NO_CODE,
        "tokenizer_mode": "the tokenizer is the model's own",
        "skip_tokenizer_init": "rows of token ids need no tokenizer, and then none is loaded",
        "revision": _HUB,
        "download_dir": _HUB,
        "hf_token": _HUB,
        "hf_overrides": "the model is what its config.json says: change a copy of it",
        "chat_template": "the template is the model's own: change a copy of its directory",
        "pipeline_parallel_size": "{tensor_parallel_size} cuts each layer; {data_parallel_size} takes replicas",
        "enable_lora": "adapters are not supported yet: merge them into the weights",
        "lora_modules": "adapters are not supported yet: merge them into the weights",
        "presence_penalty": _PENALTY,
        "frequency_penalty": _PENALTY,
        "repetition_penalty": _PENALTY,
        "best_of": "{n} gives so many answers a row",
        "top_logprobs": "{logprobs} K gives the K most likely tokens of each place",
        "echo": "{prompt_logprobs} K scores the prompt; OpenAI completions may have echo in their body",
        "response_format": "structured answers are not supported yet; {choices} gives each row one of some labels",
        "guided_json": "structured answers are not supported yet; {choices} gives each row one of some labels",
        "guided_choice": "{choices} a,b,c gives each row the most likely of some labels",
        "completion_window": "{deadline} 2h stops in time; the same command goes on later",
        "endpoint": _FILE_SAYS,
        "url": _FILE_SAYS,
        "port": "umbel has no server: umbel run takes a file",
        "host": "umbel has no server: umbel run takes a file",
        "disable_log_requests": "{quiet} shows warnings and errors only",
        "disable_log_stats": "{quiet} shows warnings and errors only",
        "use_tqdm": "progress is shown by itself; {quiet} turns it off",
        "disable_tqdm": "progress is shown by itself; {quiet} turns it off",
        "checkpoint": "finished rows are kept in OUTPUT.umbel as they come: the same command continues",
        "continue": "the same command continues an earlier run by itself",
        "restart": "the same command continues an earlier run by itself; see --help for what forgets one",
        "force": "the same command continues an earlier run by itself; see --help for what forgets one",
        "limit": "there is no limit of rows: head -n writes a shorter file",
    }
)


def instead(name: str, spelled: Callable[[str], str] = str) -> str | None:
    """What there is instead of an option of another engine, None for a name that none has. `spelled` writes the names
    of our options, which are given to it as Python has them."""
    text = FOREIGN.get(name)
    return None if text is None else _OURS.sub(lambda found: spelled(found[1]), text)

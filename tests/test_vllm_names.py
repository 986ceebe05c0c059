"""Every name that vLLM's LLM and SamplingParams have: taken with the value that asks for nothing there, and either
obeyed with another or refused with what there is instead."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from umbel.api import LLM
from umbel.config import EngineConfig
from umbel.errors import InvalidRequest, UsageError
from umbel.foreign import METHODS
from umbel.ir.params import SamplingParams

# Arguments of vllm.LLM and of its EngineArgs, each with its default there and a value that asks for something.
ENGINE: dict[str, tuple[Any, Any]] = {
    "allowed_local_media_path": ("", "/data"),
    "allowed_media_domains": (None, ["a.org"]),
    "async_scheduling": (None, "sometimes"),
    "calculate_kv_scales": (False, True),
    "chat_template": (None, "{{ x }}"),
    "compilation_config": (None, {"level": 3}),
    "config_format": ("auto", "mistral"),
    "convert": ("auto", "classify"),
    "cpu_offload_gb": (0, 8),
    "download_dir": (None, "/data"),
    "enable_chunked_prefill": (None, False),
    "enable_expert_parallel": (False, True),
    "enable_lora": (False, "yes"),
    "max_loras": (1, 0),
    "max_lora_rank": (16, "large"),
    "enable_prefix_caching": (None, False),
    "enable_sleep_mode": (False, True),
    "gpu_memory_utilization": (0.9, 0.5),
    "hf_overrides": (None, {"rope_theta": 1}),
    "hf_token": (None, "secret"),
    "kv_cache_memory_bytes": (None, 10**9),
    "limit_mm_per_prompt": (None, {"image": 2}),
    "logits_processors": (None, [print]),
    "logprobs_mode": ("raw_logprobs", "processed_logprobs"),
    "max_logprobs": (20, -1),
    "max_model_len": (None, 4096),
    "max_num_seqs": (None, 8),
    "mm_processor_kwargs": (None, {"a": 1}),
    "num_gpu_blocks_override": (None, 100),
    "override_generation_config": ({}, {"temperature": 0.5}),
    "pipeline_parallel_size": (1, 2),
    "quantization": (None, "awq"),
    "revision": (None, "main"),
    "scheduling_policy": (None, "priority"),
    "skip_tokenizer_init": (False, True),
    "speculative_config": (None, {"model": "x"}),
    "swap_space": (4, 16),
    "task": ("auto", "draft"),
    "tokenizer": (None, "other"),
    "tokenizer_mode": ("auto", "slow"),
    "tokenizer_revision": (None, "main"),
    "trust_remote_code": (False, True),
}
# The same of vllm.SamplingParams; those that are fields here are obeyed.
SAMPLING: dict[str, tuple[Any, Any]] = {
    "flat_logprobs": (False, True),
    "detokenize": (True, False),
    "spaces_between_special_tokens": (True, False),
    "thinking_token_budget": (-1, 100),
    "extra_args": (None, {"a": 1}),
    "logits_processors": (None, [print]),
    "prompt_logprob_start": (None, 5),
    "prompt_logprob_token_ids": (None, [5]),
    "routed_experts_prompt_start": (0, 3),
    "skip_reading_prefix_cache": (None, True),
    "trace_decode_token_ids": (None, [5]),
    "best_of": (None, 4),
    "use_beam_search": (False, True),
}
OBEYED = (
    "n presence_penalty frequency_penalty repetition_penalty temperature top_p top_k min_p seed stop stop_token_ids "
    "ignore_eos max_tokens min_tokens logprobs prompt_logprobs logprob_token_ids skip_special_tokens logit_bias "
    "include_stop_str_in_output allowed_token_ids bad_words structured_outputs repetition_detection"
)


@pytest.mark.parametrize("name", ENGINE)
def test_options_of_an_engine(name: str) -> None:
    plain, asks = ENGINE[name]
    assert EngineConfig.of("demo", **{name: plain}) == EngineConfig("demo")
    if name not in {f.name for f in fields(EngineConfig)}:
        with pytest.raises(UsageError, match=name) as caught:
            EngineConfig.of("demo", **{name: asks})
        assert len(str(caught.value)) > len(name) + 20 and "known:" not in str(caught.value)


@pytest.mark.parametrize("name", SAMPLING)
def test_fields_of_parameters_that_ask_for_nothing(name: str) -> None:
    plain, asks = SAMPLING[name]
    assert SamplingParams(**{name: plain}) == SamplingParams()
    with pytest.raises(InvalidRequest, match=name):
        SamplingParams(**{name: asks})


def test_fields_of_parameters_that_are_obeyed() -> None:
    known = {f.name for f in fields(SamplingParams)}
    assert set(OBEYED.split()) <= known
    assert SamplingParams(stream_interval=4, skip_clone=True, seed=-1) == SamplingParams()  # type: ignore[call-arg]


@pytest.mark.parametrize("name", METHODS)
def test_methods_that_there_are_not(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(object.__new__(LLM), name)

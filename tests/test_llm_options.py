"""`LLM` as Python sees it: options spelled out, a runner that is given, and an end."""

from __future__ import annotations

import gc
import inspect
import weakref
from dataclasses import fields
from pathlib import Path

import pytest

from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.config import EngineConfig
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.runner.fake import FakeRunner

GREEDY = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)


def test_every_setting_is_an_argument_with_its_type_and_default() -> None:
    """The signature repeats EngineConfig for editors and type checkers; it must not say anything else."""
    given = inspect.signature(LLM).parameters
    settings = {f.name: (f.type, f.default) for f in fields(EngineConfig) if f.name != "model"}
    assert {name: (given[name].annotation, given[name].default) for name in settings} == settings
    assert given.keys() - settings.keys() == {"model", "profile", "runner", "use_tqdm_on_load", "unknown"}
    assert all(given[name].kind is inspect.Parameter.KEYWORD_ONLY for name in (*settings, "profile", "runner"))


# What an LLM is of, what it has of other packages only, and what is of replicas.
OTHERS = ("model", "watchers", "data_parallel_size", "executor", "ray_address", "mixed_replicas")


@pytest.mark.parametrize("setting", [f for f in fields(EngineConfig) if f.name not in OTHERS])
def test_every_setting_reaches_the_engine(setting, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("umbel.api.LocalEngine", lambda config, *_, **__: seen.append(config) or _Stop())
    other = {
        "dtype": "float32",
        "device": "cpu",
        "load_format": "dummy",
        "prefix": "none",
        "skip": ("order",),
        "technique": ("pages",),
        "kv_dir": "folder",
        "keep": "lru",
        "speculate": "ngram",
        "model_impl": "native",
        "generation_config": "vllm",
        "lora": ("sql=/no/such/adapter",),
    }
    other |= {"admission": "headroom", "linear": "int8", "kv_cache_dtype": "fp8", "attention_backend": "torch"}
    value = other.get(setting.name, True if setting.name == "allow_lossy" else 7)
    with pytest.raises(AttributeError, match="model"):
        LLM("demo", **({"allow_lossy": True} | {setting.name: value}))
    assert getattr(seen[0], setting.name) == value != setting.default


class _Stop:
    """An engine that goes no further than its settings."""


def test_an_option_by_place_is_refused_in_pythons_words() -> None:
    with pytest.raises(TypeError, match="positional argument"):
        LLM("demo", "float32")  # type: ignore[misc]


def test_a_given_runner_computes_without_weights(tmp_path: Path) -> None:
    directory = make_model(tmp_path, "llama")
    for weights in directory.glob("*.safetensors"):
        weights.unlink()
    runner = FakeRunner(50, 16, 300)
    with LLM(str(directory), runner=runner) as llm:
        first, again = llm.generate([[5, 6], [5, 6]], GREEDY)
        assert first.outputs == again.outputs and runner.rows_run > 0
        assert llm.plan([[5]], GREEDY).kv_tokens == 50 * 16
    with LLM(str(directory), runner=FakeRunner(8, 4, 300)) as llm:
        assert llm.plan([[5]], GREEDY).page_size == 4
        assert [o.outputs for o in llm.generate([[5, 6]], GREEDY)] == [first.outputs]


def test_close_gives_the_memory_back_and_says_so(tmp_path: Path) -> None:
    with LLM(str(make_model(tmp_path, "llama")), device="cpu", threads=1) as llm:
        assert llm.generate([[5]], GREEDY)[0].error is None
        decoder = weakref.ref(llm.engine.model.decoder)
    gc.collect()
    assert decoder() is None
    llm.close()
    with pytest.raises(UsageError, match="this LLM is closed"):
        llm.generate([[5]], GREEDY)
    with pytest.raises(UsageError, match="this LLM is closed"), llm.session():
        pass


NEUTRAL = {
    "trust_remote_code": False,
    "gpu_memory_utilization": 0.9,
    "max_model_len": None,
    "max_num_seqs": None,
    "enable_prefix_caching": True,
    "enforce_eager": True,
    "tokenizer": None,
    "revision": None,
    "quantization": None,
    "swap_space": 4,
    "hf_token": None,
    "task": "generate",
    "disable_log_stats": True,
    "enable_lora": True,
    "max_loras": 4,
    "max_lora_rank": 64,
    "seed": None,
}


def test_options_of_vllm_that_ask_for_nothing_are_taken() -> None:
    assert EngineConfig.of("demo", **NEUTRAL) == EngineConfig("demo") == EngineConfig.of("demo", tokenizer="demo")
    assert EngineConfig.of("demo", max_num_batched_tokens=64, block_size=8) == EngineConfig(
        "demo", chunk=64, page_size=8
    )


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("gpu_memory_utilization", 0.5, "the KV pool is what the plan derives .*; kv_tokens sets its size"),
        ("max_model_len", 4096, "the context is the model's own"),
        ("trust_remote_code", True, "never run"),
        ("enable_prefix_caching", False, "prefix none turns it off"),
        ("quantization", "awq", "config.json"),
        ("hf_token", "secret", "Hugging Face cache"),
        ("enable_lora", 0, "lora NAME=DIR gives an adapter"),
        ("max_loras", 0, "lora NAME=DIR gives an adapter"),
        ("lora_dtype", "float16", "adapters are computed in the model's dtype"),
        ("logits_processors", [print], "code of callers does not run"),
        ("tokenizer", "other/model", "not supported; leave it out"),
        ("kv_token", None, "did you mean 'kv_tokens'"),
        ("speculative_config", {"model": "x"}, "speculate names who proposes"),
        ("runner", "draft", "generate, pooling, embed or classify"),
        ("pooler_config", {"pooling_type": "MEAN"}, "PoolingParams"),
        ("dtype", "half", "nothing is computed in float16; 'bfloat16' takes as little memory"),
        ("dtype", "float16", "'bfloat16'"),
    ],
)
def test_options_of_vllm_that_ask_for_something_are_answered(option: str, value: object, told: str) -> None:
    with pytest.raises(UsageError, match=f"{option if option != 'runner' else 'task'}.*{told}"):
        LLM("/no/such/model", **{option: value})


def test_an_option_under_both_names_is_refused() -> None:
    with pytest.raises(UsageError, match="block_size and page_size are one option"):
        LLM("/no/such/model", page_size=8, block_size=8)


def test_what_vllms_class_has_and_ours_has_not_is_said(tmp_path: Path) -> None:
    with LLM(str(make_model(tmp_path, "llama")), device="cpu", threads=1, runner=FakeRunner(8, 4, 300)) as llm:
        for name, told in (("sleep", "close"), ("reward", "classify"), ("llm_engine", "callers")):
            with pytest.raises(AttributeError, match=f"LLM has no '{name}': .*{told}"):
                getattr(llm, name)
        with pytest.raises(AttributeError, match=r"LLM has no 'generat' \(did you mean 'generate'"):
            llm.generat  # noqa: B018

"""Every key of a model directory that transformers knows is obeyed, refused, named in a note, or without effect.

The oracle is transformers in float32: what we obey gives its logits, and what we say has no effect has none there.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.mixtures import PLAIN, make_mixture
from tests.models import key_cases, keys_doc, test_zoo
from tests.models.dense import dense_logits
from tests.models.key_cases import LINEAR, LLAMA3, WINDOW
from tests.oracle import test_mixtures
from tests.tiny_models import FAMILIES, make_model
from umbel.errors import ModelError
from umbel.ir.layer import Rope, RopeScaling
from umbel.ir.spec import ModelSpec
from umbel.models import known_keys
from umbel.models.architectures import FAMILIES as ROWS
from umbel.models.decoder import Decoder
from umbel.models.families import read_spec
from umbel.models.weights import load_weights

PROMPT = list(range(5, 45))
N_TOKENS = 12
CONFIG_LISTS = (known_keys.REFUSED.keys(), known_keys.WITHOUT_EFFECT, known_keys.NAMED)
GENERATION_LISTS = (
    known_keys.GENERATION_OBEYED, known_keys.NAMED_GREEDY.keys(), known_keys.NAMED_SAMPLING.keys(),
    known_keys.NAMED_LENGTH.keys(), known_keys.GENERATION_WITHOUT_EFFECT,
)  # fmt: skip
CONTEXT_NOTE = "config.json: the context is 1,024: 512 positions, stretched by {}, as in vLLM"
GENERATES_WITH = ("bad_words_ids", "begin_suppress_tokens", "encoder_repetition_penalty", "forced_eos_token_id",
    "guidance_scale", "no_repeat_ngram_size", "num_beams", "repetition_penalty", "sequence_bias", "suppress_tokens",
    "watermarking_config")  # fmt: skip
"""Of the greedy keys, those with which transformers generates without further help."""
NEED_A_CACHE = ("assistant_early_exit", "prefill_chunk_size", "prompt_lookup_num_tokens")
"""Keys without effect that transformers refuses beside `use_cache` false."""


def write(directory: Path, name: str, values: dict[str, Any]) -> Path:
    """Add keys to a JSON file of a model directory, which may be new; gives the directory back."""
    path = directory / name
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | values))
    return directory


def oracle(directory: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


@torch.inference_mode()
def their_logits(directory: Path) -> Tensor:
    return oracle(directory)(torch.tensor([PROMPT]), return_dict=True).logits[0]


@torch.inference_mode()
def their_tokens(directory: Path) -> list[int]:
    ids = torch.tensor([PROMPT])
    return oracle(directory).generate(ids, max_new_tokens=N_TOKENS, return_dict_in_generate=False)[0].tolist()


def our_logits(directory: Path) -> Tensor:
    spec = read_spec(directory)
    return dense_logits(Decoder(spec, load_weights(directory, spec, torch.float32)), PROMPT)


def equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.allclose(one, other, rtol=1e-3, atol=1e-3))


def notes(directory: Path) -> str:
    return "\n".join(read_spec(directory).notes)


@cache
def config_keys(family: str) -> frozenset[str]:
    """Every attribute of a configuration class that a config.json may set."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(family)
    kind = type(config)
    fields = {field.name for field in dataclasses.fields(kind)}
    settable = {name for name, value in inspect.getmembers(kind) if isinstance(value, property) and value.fset}
    read = set()
    for module in ("masking_utils", "cache_utils", f"models.{family}.modeling_{family}"):
        source = inspect.getsource(import_module(f"transformers.{module}"))
        read |= set(re.findall(r'getattr\((?:self\.)?config, "(\w+)"', source))
    return frozenset(fields | settable | config.to_dict().keys() | kind.attribute_map.keys() | read)


@pytest.mark.parametrize("family", [*FAMILIES, *PLAIN])
def test_every_key_of_a_configuration_class_is_in_a_list(family: str):
    known = known_keys.OBEYED | ROWS[family].known | known_keys.WITHOUT_EFFECT_IN.get(family, frozenset())
    known = known.union(*CONFIG_LISTS)
    foreign = frozenset().union(*(row.obeyed for row in ROWS.values()))  # read by code that several families share
    missing = config_keys(family) - known - foreign
    assert not missing, f"transformers knows {sorted(missing)}: put them into a list of known_keys"
    fields = {field.name for field in dataclasses.fields(_config_class(family))}
    assert not fields - known, "a key of the family itself"
    assert len(fields) > 20


def _config_class(family: str) -> type:
    from transformers import AutoConfig

    return type(AutoConfig.for_model(family))


def test_every_key_of_generation_config_is_in_a_list():
    from transformers import GenerationConfig

    config = GenerationConfig()
    keys = vars(config).keys() | config.to_dict().keys() | GenerationConfig._get_default_generation_params().keys()
    assert not keys - frozenset().union(*GENERATION_LISTS)
    assert len(keys) > 60


def test_every_rotary_key_is_in_a_list():
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, RopeParameters

    known = frozenset().union(*known_keys.ROPE_KEYS.values()) | known_keys.ROPE_KEYS_NAMED
    assert not RopeParameters.__annotations__.keys() - known
    assert known_keys.ROPE_KEYS.keys() - {"default"} < ROPE_INIT_FUNCTIONS.keys()


def test_lists_are_disjoint_and_every_key_has_a_case():
    obeyed = known_keys.OBEYED.union(*(row.obeyed for row in ROWS.values()))
    lists = (obeyed, *CONFIG_LISTS)
    assert sum(map(len, lists)) == len(frozenset().union(*lists))
    assert sum(map(len, GENERATION_LISTS)) == len(frozenset().union(*GENERATION_LISTS))
    kinds = key_cases.COMPUTED, key_cases.READ, key_cases.ONE_VALUE, key_cases.OF_ZOO, key_cases.OF_MIXTURES
    assert frozenset().union(*kinds) == obeyed
    assert key_cases.REFUSED.keys() == known_keys.REFUSED.keys()
    assert key_cases.WITHOUT_EFFECT.keys() == known_keys.WITHOUT_EFFECT
    assert key_cases.NAMED.keys() == known_keys.NAMED
    assert key_cases.GREEDY.keys() == known_keys.NAMED_GREEDY.keys()
    assert key_cases.SAMPLING.keys() == known_keys.NAMED_SAMPLING.keys()
    assert key_cases.LENGTH.keys() == known_keys.NAMED_LENGTH.keys()
    assert key_cases.GENERATION_WITHOUT_EFFECT.keys() == known_keys.GENERATION_WITHOUT_EFFECT


def test_the_page_is_what_the_lists_say():
    page = keys_doc.document()
    assert keys_doc.DOC.read_text(encoding="utf-8") == page, "python -m tests.models.keys_doc"
    named = set(re.findall(r"`(test_\w+)` \|$", page, re.MULTILINE))
    assert len(named) > 8
    assert named <= globals().keys() | vars(test_zoo).keys() | vars(test_mixtures).keys()


@pytest.mark.parametrize("key", key_cases.COMPUTED)
def test_computed(key: str, tmp_path: Path):
    family, overrides = key_cases.COMPUTED[key]
    changed = make_model(tmp_path / "changed", family, **overrides)
    plain = make_model(tmp_path / "plain", family, **{k: v for k, v in overrides.items() if k != key})
    assert equal(our_logits(changed), their_logits(changed))
    assert not equal(our_logits(changed), our_logits(plain))
    assert notes(changed) == ("" if key not in ("rope_parameters", "rope_scaling") else CONTEXT_NOTE.format(key))


@pytest.mark.parametrize("key", key_cases.READ)
def test_read(key: str, tmp_path: Path):
    overrides, field = key_cases.READ[key]
    plain, changed = (read_spec(make_model(tmp_path / name, **over)) for name, over in (("a", {}), ("b", overrides)))
    assert getattr(plain, field) != getattr(changed, field)
    assert changed.notes == ()


@pytest.mark.parametrize("key", key_cases.ONE_VALUE)
def test_one_value(key: str, tmp_path: Path):
    directory = make_model(tmp_path)
    with pytest.raises(ModelError, match=key):
        read_spec(write(directory, "config.json", {key: key_cases.ONE_VALUE[key]}))


@pytest.mark.parametrize("key", key_cases.REFUSED)
def test_refused(key: str, tmp_path: Path):
    with pytest.raises(ModelError, match=key):
        read_spec(make_model(tmp_path, **{key: key_cases.REFUSED[key]}))
    for neutral in known_keys.REFUSED[key]:
        assert read_spec(make_model(tmp_path, **{key: neutral})).notes == ()


@pytest.mark.parametrize("key", key_cases.WITHOUT_EFFECT)
def test_without_effect(key: str, tmp_path: Path):
    plain = read_spec(make_model(tmp_path / "a"))
    changed = read_spec(make_model(tmp_path / "b", **{key: key_cases.WITHOUT_EFFECT[key]}))
    assert changed == plain
    assert changed.notes == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_agrees_on_what_has_no_effect(family: str, tmp_path: Path):
    """All of these keys at once, and those of generation_config.json."""
    only_ours = {"return_dict", "output_attentions", "output_hidden_states", "torchscript"}  # break generate() itself
    keys = {k: v for k, v in key_cases.WITHOUT_EFFECT.items() if k not in only_ours} | key_cases.NAMED
    del keys["attention_chunk_size"]  # transformers computes without it, but sets up its cache by it
    keys |= {key: 0.5 if "noise" in key else 1 for key in known_keys.WITHOUT_EFFECT_IN.get(family, ())}
    plain = make_model(tmp_path / "a", family)
    changed = make_model(tmp_path / "b", family, **keys)
    assert equal(their_logits(plain), their_logits(changed))
    helpless = {
        "is_assistant",
        "use_mtp",
        "continuous_batching_config",
        "cache_config",
        "compile_config",
        *NEED_A_CACHE,
    }
    quiet = {k: v for k, v in key_cases.GENERATION_WITHOUT_EFFECT.items() if k not in helpless}
    write(changed, "generation_config.json", quiet | {"eos_token_id": 0})
    assert their_tokens(plain) == their_tokens(changed)
    for key in NEED_A_CACHE:
        assert their_tokens(write(plain, "generation_config.json", {key: 2, "eos_token_id": 0})) == their_tokens(
            changed
        )


def test_without_effect_in_a_family(tmp_path: Path):
    for family, keys in known_keys.WITHOUT_EFFECT_IN.items():
        make, sizes = (make_model, {}) if family in FAMILIES else (make_mixture, PLAIN[family])
        plain = make(tmp_path / "a", family, **sizes)
        changed = write(make(tmp_path / "b", family, **sizes), "config.json", dict.fromkeys(keys, 1))
        assert read_spec(plain) == read_spec(changed)
        assert notes(changed) == ""


@pytest.mark.parametrize("key", key_cases.NAMED)
def test_named(key: str, tmp_path: Path):
    directory = make_model(tmp_path, **{key: key_cases.NAMED[key]})
    assert f"config.json: not used by 'llama' models: {key}=" in notes(directory)


def test_keys_of_other_families_and_unknown_ones_are_named(tmp_path: Path):
    assert "sliding_window=9" in notes(make_model(tmp_path / "a", sliding_window=9))
    assert notes(make_model(tmp_path / "b", sliding_window=512)) == ""  # the context is not longer
    assert "mlp_bias=True, norm_topk_prob=True" in notes(
        make_model(tmp_path / "c", "mistral", mlp_bias=True, norm_topk_prob=True)
    )
    assert "no_such_key='x', '\\ud800\\n\\x1b'=1" in notes(
        make_model(tmp_path / "d", **{"no_such_key": "x", "\ud800\n\x1b": 1})
    )
    assert notes(make_model(tmp_path / "e", no_such_key=None, other=False, third=[])) == ""
    many = notes(make_model(tmp_path / "f", **{f"key_{i}": "x" * 1000 for i in range(40)}))
    assert "and 28 more" in many
    assert len(many) < 2000


OVERRULED = ", for rows that do not set them; --generation-config vllm leaves it out"


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("key", [*key_cases.GREEDY, *key_cases.SAMPLING, *key_cases.LENGTH])
def test_generation_keys(key: str, name: str, tmp_path: Path):
    """In the file of their own, and as old models have them, in config.json."""
    value = (key_cases.GREEDY | key_cases.SAMPLING | key_cases.LENGTH)[key]
    directory = write(make_model(tmp_path), name, {key: value, "eos_token_id": 0})
    (note,) = read_spec(directory, generation_config="vllm").notes
    assert note.startswith(f"{name}: {key}={value!r} is not applied")
    (by_default,) = read_spec(directory).notes
    ours = known_keys.GENERATION_APPLIED.get(key)
    assert by_default == (note if ours is None else f"{ours} {value:g} from {name}{OVERRULED}")
    assert dict(read_spec(directory).sampling) == ({} if ours is None else {ours: value})
    assert ("greedy answers differ" in note) == (key in key_cases.GREEDY)
    named = known_keys.NAMED_GREEDY | known_keys.NAMED_SAMPLING | known_keys.NAMED_LENGTH
    for neutral in named[key]:
        assert notes(write(directory, name, {key: neutral})) == ""


def test_all_generation_keys_of_a_kind_share_a_note(tmp_path: Path):
    stated = {"do_sample": True, "repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
    directory = write(make_model(tmp_path), "generation_config.json", stated | {"eos_token_id": 0, "max_length": 512})
    greedy, sampling = read_spec(directory, generation_config="none").notes
    assert "repetition_penalty=1.05 is not applied: greedy answers differ from transformers' generate()" in greedy
    assert "temperature=0.7, top_k=20, top_p=0.8 are not applied" in sampling


def test_generation_keys_of_config_count_only_without_the_file(tmp_path: Path):
    directory = make_model(tmp_path, repetition_penalty=1.3)
    assert notes(directory) == f"repetition_penalty 1.3 from config.json{OVERRULED}"
    with_penalty = their_tokens(directory)
    write(directory, "generation_config.json", {"eos_token_id": 0})
    assert notes(directory) == ""
    assert their_tokens(directory) != with_penalty


def test_greedy_answers_of_transformers_differ_by_what_is_named(tmp_path: Path):
    plain = their_tokens(make_model(tmp_path / "plain", eos_token_id=None))
    answer = plain[len(PROMPT) :]
    said = key_cases.GREEDY | {"suppress_tokens": answer[:1], "begin_suppress_tokens": answer[:1]}
    said |= {"bad_words_ids": [answer[:1]], "forced_eos_token_id": (answer[-1] + 1) % 300}
    for key in GENERATES_WITH:
        directory = make_model(tmp_path / key, eos_token_id=None)
        assert their_tokens(write(directory, "generation_config.json", {key: said[key]})) != plain, key


@pytest.mark.parametrize("key", key_cases.GENERATION_WITHOUT_EFFECT)
def test_generation_keys_without_effect(key: str, tmp_path: Path):
    plain = read_spec(make_model(tmp_path))
    values = {key: key_cases.GENERATION_WITHOUT_EFFECT[key], "eos_token_id": 0}
    changed = read_spec(write(tmp_path, "generation_config.json", values))
    assert changed == plain
    assert changed.notes == ()


def test_unknown_generation_keys_are_named(tmp_path: Path):
    values = {"eos_token_id": 0, "presence_penalty": 1.5, "chat_format": "chatml", "other": None}
    directory = write(make_model(tmp_path), "generation_config.json", values)
    assert notes(directory) == "generation_config.json: not used: presence_penalty=1.5, chat_format='chatml'"


def test_ends_of_an_answer(tmp_path: Path):
    """The union of both files, with a note where transformers would go on; -1 is no token."""
    directory = make_model(tmp_path, eos_token_id=[4, -1, 5])
    write(directory, "generation_config.json", {"eos_token_id": 5})
    assert read_spec(directory).eos_token_ids == (4, 5)
    assert "eos_token_id 4 ends answers too" in notes(directory)
    write(directory, "generation_config.json", {"eos_token_id": [5, 4, 6]})
    assert (read_spec(directory).eos_token_ids, notes(directory)) == ((4, 5, 6), "")
    assert read_spec(make_model(tmp_path / "b", eos_token_id=-1)).eos_token_ids == ()
    config = json.loads((directory / "config.json").read_text())
    del config["eos_token_id"]  # a llama model then ends at 2
    (directory / "config.json").write_text(json.dumps(config))
    assert read_spec(directory).eos_token_ids == (2, 4, 5, 6)
    assert "eos_token_id 2 ends answers too" in notes(directory)


DEFAULT = {"rope_type": "default", "rope_theta": 50.0}


def test_ends_beyond_the_vocabulary_are_named_as_no_model_can_write_them(tmp_path: Path):
    directory = make_model(tmp_path, eos_token_id=[4, 300, 10**30], bos_token_id=300, pad_token_id=300)
    spec = read_spec(directory)
    assert (spec.eos_token_ids, spec.bos_token_id) == ((4,), None)
    assert notes(directory) == f"eos_token_id (300, {10**30}) is beyond vocab_size=300: it ends no answer"
    assert len(their_tokens(make_model(tmp_path / "b", eos_token_id=300))) == len(PROMPT) + N_TOKENS


ROTARY: dict[str, tuple[dict[str, Any], RopeScaling | None, float]] = {
    "old": ({"rope_scaling": {"type": "linear", "factor": 2}, "rope_theta": 77.0}, RopeScaling("linear", 2.0), 77.0),
    "old, new name": ({"rope_scaling": LINEAR, "rope_theta": 77.0}, RopeScaling("linear", 2.0), 77.0),
    "two names in one": (
        {"rope_scaling": {"rope_type": "linear", "type": "dynamic", "factor": 2.0}}, RopeScaling("linear", 2.0), 1e4,
    ),
    "new": (
        {"rope_theta": 77.0, "rope_parameters": LINEAR | {"rope_theta": 50.0}},
        RopeScaling("linear", 2.0), 50.0,
    ),
    "new, theta outside": ({"rope_theta": 77.0, "rope_parameters": LINEAR}, RopeScaling("linear", 2.0), 77.0),
    "both": (
        {"rope_theta": None, "rope_parameters": DEFAULT, "rope_scaling": LINEAR},
        RopeScaling("linear", 2.0), 1e4,
    ),
    "both, theta outside": (
        {"rope_theta": 77.0, "rope_parameters": DEFAULT, "rope_scaling": LINEAR},
        RopeScaling("linear", 2.0), 77.0,
    ),
    "empty beside the other": (
        {"rope_scaling": {}, "rope_parameters": DEFAULT}, None, 50.0,
    ),
    "llama3": ({"rope_scaling": LLAMA3}, RopeScaling("llama3", 8.0, 1.0, 4.0, 512), 1e4),
    "llama3, context outside": (
        {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 128}, "original_max_position_embeddings": 64},
        RopeScaling("llama3", 8.0, 1.0, 4.0, 64), 1e4,
    ),
    "no kind": ({"rope_scaling": {"factor": 4.0}}, None, 1e4),
}  # fmt: skip


@pytest.mark.parametrize("name", ROTARY)
def test_rotary_settings(name: str, tmp_path: Path):
    overrides, scaling, theta = ROTARY[name]
    directory = make_model(tmp_path, **overrides)
    if overrides.get("rope_theta", 0) is None:  # null differs from a missing key in transformers
        config = json.loads((directory / "config.json").read_text())
        del config["rope_theta"]
        (directory / "config.json").write_text(json.dumps(config))
    spec = read_spec(directory)
    assert (spec.layers[0].rope, spec.rope_theta) == (Rope(scaling=scaling), theta)
    assert equal(our_logits(directory), their_logits(directory))
    assert ("rope_parameters={" in notes(directory)) == name.startswith("both")
    linear = scaling is not None and scaling.kind == "linear"
    assert spec.max_positions == (1024 if linear else 512)
    assert ("the context is 1,024" in notes(directory)) == linear


def test_rotary_keys_that_are_not_used(tmp_path: Path):
    for key in known_keys.ROPE_KEYS_NAMED | {"foo"}:
        directory = make_model(tmp_path / key, rope_scaling=LINEAR | {key: 3.0})
        assert f"config.json: rope_scaling: rope_type 'linear' does not use {{'{key}': 3.0}}" in notes(directory)
    everything = make_model(tmp_path, rope_scaling=LINEAR | dict.fromkeys(known_keys.ROPE_KEYS_NAMED, 3.0))
    assert equal(our_logits(everything), their_logits(everything))
    for kind in ("mrope", "su", "proportional", ["linear"], 1):
        for style in ("rope_scaling", "rope_parameters"):
            with pytest.raises(ModelError, match="rope_type"):
                read_spec(make_model(tmp_path, **{style: LINEAR | {"rope_type": kind}}))


WINDOWS: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "mistral, said twice": ("mistral", {"sliding_window": 8, "layer_types": ["sliding_attention"] * 2}, 8),
    "llama": ("llama", {"layer_types": ["full_attention"] * 2}, None),
    "an old name": ("mixtral", {"layer_types": ["attention"] * 2}, None),
    "layers decide": (
        "qwen3",
        WINDOW | {"max_window_layers": 0, "layer_types": ["full_attention"] * 2},
        None,
    ),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_layer_types_that_agree_with_the_window(name: str, tmp_path: Path):
    family, overrides, window = WINDOWS[name]
    directory = make_model(tmp_path, family, **overrides)
    assert read_spec(directory).kv_shape(0).window == window
    assert equal(our_logits(directory), their_logits(directory))


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("mistral", {"sliding_window": 8, "layer_types": ["full_attention"] * 2}),
        ("mixtral", {"layer_types": ["sliding_attention"] * 2}),
        ("qwen3_moe", WINDOW | {"layer_types": ["full_attention"] * 2}),
        ("llama", {"layer_types": ["sliding_attention"] * 2, "sliding_window": 8}),
        ("llama", {"layer_types": ["full_attention", "linear_attention"]}),
        ("llama", {"layer_types": ["full_attention"] * 3}),
        ("llama", {"layer_types": "full_attention"}),
        ("llama", {"layer_types": [1, None]}),
    ],
)
def test_layer_types_that_contradict_are_refused(family: str, overrides: dict[str, Any], tmp_path: Path):
    with pytest.raises(ModelError, match=r"layer_types|sliding window"):
        read_spec(make_model(tmp_path, family, **overrides))


def test_an_adapter_beside_the_model_is_named(tmp_path: Path):
    (make_model(tmp_path) / "adapter_config.json").write_text("{}")
    assert notes(tmp_path) == "adapter_config.json is not read: adapters are not applied"


def test_a_context_has_a_limit(tmp_path: Path):
    assert read_spec(make_model(tmp_path, rope_scaling=LINEAR | {"factor": 1e6})).max_positions == 2**27


def test_names_that_mean_the_same(tmp_path: Path):
    plain = read_spec(make_model(tmp_path / "plain"))
    for i, overrides in enumerate(
        ({"hidden_act": "swish"}, {"torch_dtype": "torch.float32"}, {"torch_dtype": "float"})
    ):
        directory = make_model(tmp_path / str(i), **overrides)
        assert (read_spec(directory), notes(directory)) == (plain, "")
    half: ModelSpec = read_spec(make_model(tmp_path / "half", torch_dtype="torch.half"))
    assert half.dtype == "float16"
    swish = make_model(tmp_path / "swish", hidden_act="swish")
    assert equal(our_logits(swish), their_logits(swish))


@pytest.mark.parametrize("kind", ["mamba", "qwen2_moe", "lama", "Llama", "qwen3moe"])
def test_no_other_architecture_is_suggested(kind: str, tmp_path: Path):
    with pytest.raises(ModelError) as caught:
        read_spec(make_model(tmp_path, model_type=kind, num_local_experts=None))
    assert "did you mean" not in str(caught.value)

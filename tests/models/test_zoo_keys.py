"""Whatever a config of one of our families says: we refuse it, or compute what transformers computes.

Each value of a saved config.json is changed, the weights stay. Where transformers still loads them all, the oracle
speaks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.dense import dense_logits
from tests.models.zoo import CASES, make_zoo_model, sum_token_by_token
from tests.parameters import few_of
from umbel.errors import ModelError
from umbel.models.decoder import Decoder
from umbel.models.families import read_spec
from umbel.models.weights import StoredWeights

BASES = {kind: name for name, (kind, _) in reversed(CASES.items())}
SHORT = ["cohere", "falcon", "gemma3_text", "gpt2", "granite", "phi3", "smollm3"]
PROMPT = torch.randint(318, (1, 70), generator=torch.Generator().manual_seed(0))
NOT_OF_LOGITS = (
    "architectures", "bos_token_id", "dtype", "eos_token_id", "model_type", "pad_token_id", "tie_word_embeddings",
    "transformers_version",
)  # fmt: skip
"""Keys that other tests are about: the state of a model with tied weights says nothing."""
NOT_STATED = ("architectures", "time_step_limit", "transformers_version")  # which transformers reads from files only
SOMETHING = {
    "attn_logit_softcapping": 5.0, "final_logit_softcapping": 5.0, "head_dim": 32, "sliding_window": 24,
    "use_bidirectional_attention": True, "num_ln_in_parallel_attn": 1, "layer_types": ["sliding_attention"] * 3,
}  # fmt: skip
"""What keys that are null could say."""


def changed(key: str, value: Any) -> Iterator[Any]:
    """Other values of a key."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (2 * value, value // 2)
    elif isinstance(value, float):
        yield from (2 * value, value / 2)
    elif isinstance(value, dict):
        for inner, old in value.items():
            yield from (value | {inner: new} for new in changed(inner, old))
    elif isinstance(value, list):
        yield value[::-1]
    elif value is None and key in SOMETHING:
        yield SOMETHING[key]
    elif key in ("hidden_act", "activation_function", "activation", "hidden_activation"):
        yield from ("relu", "gelu", "silu", "gelu_new")


def theirs(config: dict[str, Any], weights: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """Logits of transformers, None where it refuses the config or the weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        stated = {key: value for key, value in config.items() if key not in NOT_STATED}
        other = AutoConfig.for_model(stated.pop("model_type"), **stated)
        other._attn_implementation = "eager"
        model = AutoModelForCausalLM.from_config(other).float().eval()
        model.load_state_dict(weights)
        return model(PROMPT).logits[0]
    except Exception:  # what it raises depends on the key
        return None


def ours(directory: Path) -> torch.Tensor | None:
    """Our logits, None where the config is refused."""
    try:
        spec = read_spec(directory)
        weights = StoredWeights(directory, spec, torch.float32)
        return dense_logits(Decoder(spec, weights), PROMPT[0].tolist())
    except ModelError:
        return None


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """An oracle whose sums are as long as ours."""
    sum_token_by_token(monkeypatch)


@pytest.mark.parametrize("kind", few_of(SHORT, sorted(BASES.keys() - set(SHORT))))
@torch.inference_mode()
def test_other_values_are_obeyed_or_refused(kind: str, tmp_path: Path) -> None:
    model = make_zoo_model(tmp_path, BASES[kind])
    weights, path = model.state_dict(), tmp_path / "config.json"
    config = json.loads(path.read_text())
    compared, wrong = 0, []
    for key in sorted((config.keys() | SOMETHING.keys()) - set(NOT_OF_LOGITS)):
        for value in changed(key, config.get(key)):
            other = config | {key: value}
            path.write_text(json.dumps(other))
            expected, got = theirs(other, weights), ours(tmp_path)
            compared += expected is not None and got is not None
            if expected is not None and got is not None and not torch.allclose(got, expected, atol=2e-4, rtol=1e-4):
                wrong.append(f"{key}={value!r}: {(got - expected).abs().max():.1e}")
    assert not wrong, "; ".join(wrong)
    assert compared > 8

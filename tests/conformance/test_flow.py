"""Every flow of the catalogue: with a setting of 1 the engine is dense to the bit, and what a row answers depends on
its own tokens alone, wherever chunks end, whatever runs beside it, and whatever stepped back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.triton_rows import use_triton_rows
from tests.plan.workloads import SPEC
from tests.tiny_models import make_model
from umbel import LLM, SamplingParams, registry
from umbel.config import EngineConfig
from umbel.engine.flowing import check_flow
from umbel.errors import UsageError
from umbel.ir.hosted import Hosted
from umbel.ir.latent import Latent
from umbel.ir.layer import Layer
from umbel.plan.walk.passing import passed_layers

ROWS = {row.name: row for row in registry.rows("flow")}
EACH = pytest.mark.parametrize("name", ROWS)
SETTING = {name: row.settings[0].name for name, row in ROWS.items()}  # 1 is everything
MORE = {"skip-decode": "over=8,"}  # so that short answers have something of it
ASKED = {name: f"{name}:{MORE.get(name, '')}{setting}" for name, setting in SETTING.items()}
SHARED = [j * 7 % 290 + 3 for j in range(50)]
PROMPTS = [[*SHARED, *((i * 31 + j * 5) % 290 + 3 for j in range(9 + 8 * i))] for i in range(4)]
Answers = list[list[tuple[tuple[int, ...], float]]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("flow") / "model", "qwen3", num_hidden_layers=4)


def answers(model: Path, asked: str, prompts: Sequence[list[int]] = PROMPTS, **options: Any) -> Answers:
    """Tokens and sums of log-probabilities of two samples of each prompt; rows of which step back where pages lack."""
    technique = {"technique": asked, "allow_lossy": True} if asked else {}
    llm = LLM(str(model), **{"speculate": "off", "device": "cpu", "dtype": "float32"}, **technique, **options)
    params = SamplingParams(temperature=0.7, seed=3, n=2, max_tokens=40, ignore_eos=True, logprobs=0)
    outputs = llm.generate(list(prompts), params, use_tqdm=False)
    if "kv_tokens" in options:
        assert llm.engine.stats().preemptions
    return [[(one.token_ids, one.cumulative_logprob) for one in output.outputs] for output in outputs]


@EACH
@pytest.mark.parametrize("linear", ["dense", "int8"])
def test_a_setting_of_1_is_dense_to_the_bit_and_a_small_one_is_not(name: str, linear: str, model: Path) -> None:
    asked, lossy = ASKED[name], {"linear": linear, "allow_lossy": True}
    dense = LLM(str(model), speculate="off", device="cpu", dtype="float32", **lossy)
    params = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
    plain = [output.outputs[0].token_ids for output in dense.generate(PROMPTS, params, use_tqdm=False)]
    found = {}
    for share in (1, 0.5):
        options = {"technique": f"{asked}={share}", "device": "cpu", "dtype": "float32", "speculate": "off", **lossy}
        outputs = LLM(str(model), **options).generate(PROMPTS, params, use_tqdm=False)
        found[share] = [output.outputs[0].token_ids for output in outputs]
    assert found[1] == plain != found[0.5]
    if linear == "dense":
        assert answers(model, f"{asked}=1") == answers(model, "")


@EACH
def test_nothing_else_in_a_job_changes_an_answer(name: str, model: Path) -> None:
    """Chunks, a row alone, and a pool so small that rows step back and are computed again."""
    asked = f"{ASKED[name]}=0.5"
    wanted = answers(model, asked)
    assert answers(model, asked, chunk=17) == wanted
    assert answers(model, asked, kv_tokens=272, admission="aggressive") == wanted
    assert answers(model, asked, PROMPTS[:1]) == wanted[:1]


@EACH
def test_what_cannot_be_asked_is_refused_by_name(name: str) -> None:
    setting, lossy = SETTING[name], {"allow_lossy": True}
    for asked, why in (
        (f"{name}:{setting}=0", f"{setting}=0: must be above 0 and at most 1"),
        (f"{name}:{setting}=some", f"{setting}='some': must be a number"),
        (f"{name}:layer=0.5", f"'layer' is no setting of .*{setting}"),
    ):
        with pytest.raises(UsageError, match=why):
            EngineConfig("demo", technique=(asked,), **lossy)
    for other in ("pages", "flex-prefill", "h2o", name):
        for pair in ((name, other), (other, name)):
            with pytest.raises(UsageError, match="leave no queries where they do not pass; give one of them"):
                EngineConfig("demo", technique=pair, **lossy)
    with pytest.raises(UsageError, match="use replicas"):
        EngineConfig("demo", technique=(name,), tensor_parallel_size=2, **lossy)


@EACH
def test_models_that_cannot_bear_it_are_refused(name: str) -> None:
    hosted = replace(SPEC, hosted=Hosted("Some", ()))
    with pytest.raises(UsageError, match=f"{name}'.* run through transformers, as a whole"):
        check_flow((name,), hosted)
    with pytest.raises(UsageError, match=f"{name}'.* leave lora out"):
        check_flow((name,), SPEC, adapters=True)
    latent = replace(SPEC, layers=(Layer(latent=Latent(8, 4, 4, 8)),))
    if passed_layers((name,)).leaves_keys:
        with pytest.raises(UsageError, match=f"{name}'.* not made of one product"):
            check_flow((name,), latent)


@pytest.mark.slow
@EACH
def test_kernels_of_gpus_give_the_same(name: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the interpreter, where there is no GPU; answers are so short that the schedule has to fall at once."""
    triton = pytest.importorskip("umbel.attention.triton", reason="Triton is not installed here")
    asked = f"{ASKED[name]}=0.5".replace("over=8", "over=1")
    options = {"technique": asked, "allow_lossy": True, "speculate": "off", "device": "cpu", "dtype": "float32"}
    short = [[*SHARED[:8], 5 + i, 7] for i in range(2)]
    params = SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True, logprobs=0)
    wanted = LLM(str(model), **options).generate(short, params, use_tqdm=False)
    use_triton_rows(monkeypatch)
    made = lambda spec, store, device, *_: triton.TritonAttention(spec, store, device)  # noqa: E731
    monkeypatch.setattr("umbel.engine.build.pick_attention", made)
    found = LLM(str(model), **options).generate(short, params, use_tqdm=False)
    for one, other in zip(found, wanted, strict=True):
        assert one.outputs[0].token_ids == other.outputs[0].token_ids
        assert one.outputs[0].cumulative_logprob == pytest.approx(other.outputs[0].cumulative_logprob, abs=1e-4)

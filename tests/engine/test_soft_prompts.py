"""Rows with soft prompts: what PEFT gives for each alone, to the same bits in any batch; their places stay unseen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import umbel
from tests.adapters import write_adapter
from tests.engine.test_gpu_path import on_gpu_kernels
from tests.models.zoo import make_zoo_model
from tests.parameters import few_of
from tests.soft_prompts import write_soft_prompt
from tests.tiny_models import make_model
from umbel.api import LLM, RequestOutput
from umbel.errors import ModelError, UsageError
from umbel.ir.params import SamplingParams
from umbel.ir.pooling import PoolingParams

SHARED = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]
PROMPTS = [[*SHARED, 30 + i % 3, *range(40, 40 + 5 * (i % 4))] for i in range(8)]
NAMES = (None, "kv", "other", "soft", "lora")
KINDS = ("prefix", "projected prefix", "prompt", "encoded prompt")
SHORT, MORE = [("qwen3",), ("glm4",), ("gpt2",)], ["llama", "phi3", "neox", "gemma2", "gemma3", "ernie", "cohere"]
OTHERS = [(name,) for name in (*MORE, "olmo2", "opt", "smollm3")]


def as_peft_has_it(kind: str) -> Any:
    peft = pytest.importorskip("peft", reason="PEFT is not installed here")
    common = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 7}
    if "prefix" in kind:
        return peft.PrefixTuningConfig(**common, prefix_projection=kind != "prefix", encoder_hidden_size=16)
    return peft.PromptTuningConfig(**common) if kind == "prompt" else peft.PromptEncoderConfig(**common)


@pytest.mark.filterwarnings("ignore")  # of PEFT and transformers
@pytest.mark.parametrize(("name",), few_of(SHORT, OTHERS))
def test_answers_are_those_of_peft(name: str, tmp_path: Path) -> None:
    """Rows of four kinds and without any together: log-probabilities of prompts within 1e-4, the same greedy tokens."""
    peft = pytest.importorskip("peft", reason="PEFT is not installed here")
    kinds = [kind for kind in KINDS if "prefix" in kind or "gemma" not in name]
    wrapped: dict[str | None, Any] = {}
    for kind in kinds:
        base = make_zoo_model(tmp_path / "model", name)
        torch.manual_seed(len(kind))
        wrapped[kind] = peft.get_peft_model(base, as_peft_has_it(kind)).eval()
        for own, weight in wrapped[kind].named_parameters():
            if "prompt_encoder" in own:
                weight.data.normal_(0, 0.5 if "prefix" in kind else 0.1)
        wrapped[kind].save_pretrained(tmp_path / kind)
    wrapped[None] = make_zoo_model(tmp_path / "model", name)
    given = {kind.replace(" ", "-"): str(tmp_path / kind) for kind in kinds}
    rows = [(kind, prompt) for prompt in (PROMPTS[0], PROMPTS[3]) for kind in wrapped]
    asked = [
        SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, prompt_logprobs=0, lora=k and k.replace(" ", "-"))
        for k, _ in rows
    ]
    with LLM(str(tmp_path / "model"), dtype="float32", device="cpu", threads=1, lora=given) as llm:
        outputs = llm.generate([prompt for _, prompt in rows], asked)
    for (kind, prompt), output in zip(rows, outputs, strict=True):
        assert output.error is None and output.prompt_token_ids == prompt
        wanted, tokens = _expected(wrapped[kind], prompt, list(output.outputs[0].token_ids))
        assert output.prompt_logprobs is not None and len(output.prompt_logprobs) == len(prompt)
        found = [next(iter(each.values())).logprob for each in output.prompt_logprobs[1:] if each is not None]
        torch.testing.assert_close(torch.tensor(found), wanted, atol=1e-4, rtol=0)
        assert list(output.outputs[0].token_ids) == tokens


@torch.inference_mode()
def _expected(model: Any, prompt: list[int], answer: list[int]) -> tuple[torch.Tensor, list[int]]:
    """Log-probabilities of a prompt's tokens behind the first, and the likeliest token at each place of an answer."""
    ids = [*prompt, *answer]
    logits = model(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits[0][-len(ids) :]
    scores = logits.log_softmax(-1)[: len(prompt) - 1].gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
    return scores, logits[len(prompt) - 1 : -1].argmax(-1).tolist()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("soft") / "model", "qwen3", seed=1)


@pytest.fixture(scope="module")
def lora(base: Path) -> dict[str, str]:
    """Two prefixes of other lengths, embeddings, and an adapter of low rank, for a model of 2 layers and 2 KV heads."""
    config = umbel.LLM(str(base), device="cpu").spec
    shape = config.kv_shapes[0]
    width = 2 * config.n_layers * shape.n_kv_heads * shape.key_dim
    write_soft_prompt(base.parent / "kv", "PREFIX_TUNING", (9, width), 1)
    write_soft_prompt(base.parent / "other", "PREFIX_TUNING", (21, width), 2)
    write_soft_prompt(base.parent / "soft", "PROMPT_TUNING", (5, config.hidden_size), 3)
    write_adapter(base.parent / "lora", base, seed=4)
    return {name: str(base.parent / name) for name in NAMES if name is not None}


def asking(name: str | None, i: int) -> SamplingParams:
    """What row i asks for: some are greedy, some drawn, some scored, some stop, some repeat less."""
    drawn = {"temperature": 0.8, "seed": i} if i % 2 else {"temperature": 0.0, "repetition_penalty": 1.3}
    scored = {"prompt_logprobs": 1} if i % 4 == 2 else {"n": 2} if i % 4 == 1 else {}
    return SamplingParams(**drawn, **scored, max_tokens=5, ignore_eos=True, logprobs=2, lora=name)


def bits(outputs: Sequence[RequestOutput]) -> list[Any]:
    """Tokens and log-probabilities of each row."""
    assert all(output.error is None for output in outputs), [output.error for output in outputs]
    return [([(c.token_ids, c.logprobs) for c in o.outputs], o.prompt_logprobs, o.prompt_token_ids) for o in outputs]


ROWS = [(NAMES[i % 5], prompt, i) for i, prompt in enumerate(PROMPTS * 2)]
FORMS = few_of(
    [({},), ({"kv_cache_dtype": "int8", "allow_lossy": True},), ({"kv_tokens": 128, "chunk": 8},)],
    [({"prefix": "none"},), ({"prefix": "every-fork", "chunk": 16},), ({"speculate": "ngram"},)],
)


@pytest.mark.parametrize(("form",), FORMS)
def test_a_row_has_the_bits_that_it_has_alone(form: dict[str, Any], base: Path, lora: dict[str, str]) -> None:
    settings = {"dtype": "float32", "device": "cpu", "threads": 1, **form}
    llm, plain = (LLM(str(base), **settings, lora=given) for given in (lora, {}))
    params = [asking(name, i) for name, _, i in ROWS]
    together = bits(llm.generate([prompt for _, prompt, _ in ROWS], params))
    assert together == [bits(llm.generate([p], asked))[0] for (_, p, _), asked in zip(ROWS, params, strict=True)]
    own = [i for i, (name, _, _) in enumerate(ROWS) if name is None]
    assert [together[i] for i in own] == bits(plain.generate([ROWS[i][1] for i in own], [params[i] for i in own]))
    with llm.session() as session:
        tickets = session.add([prompt for _, prompt, _ in ROWS], params, keys=range(len(ROWS)))
        record = session.abort(tickets[1])
        tickets[1] = session.resume(record)
        session.close()
        found = {event.ticket: event.output for event in session if event.output is not None}
    assert [bits([found[ticket]])[0] for ticket in tickets] == together


def test_a_prefix_is_computed_once_and_planned(base: Path, lora: dict[str, str]) -> None:
    llm = LLM(str(base), dtype="float32", device="cpu", threads=1, lora=lora, prefix="every-fork")
    params = SamplingParams(temperature=0, max_tokens=2, lora="other")
    before = llm.stats().computed_prompt_tokens
    llm.generate([[30 + i, 8, 9] for i in range(6)], params)
    assert llm.stats().computed_prompt_tokens - before == 21 + 6 * 3
    assert "other 6" in llm.plan([[30 + i] for i in range(6)], params).explain()


def test_the_context_is_shorter_by_it(base: Path, lora: dict[str, str]) -> None:
    llm = LLM(str(base), dtype="float32", device="cpu", threads=1, lora=lora)
    most = llm.spec.max_positions - 21 - 1
    rows = [[7] * most, [7] * (most + 1), [7] * (most + 1)]
    params = [SamplingParams(temperature=0, lora=name) for name in ("other", "other", None)]
    fits, long, plain = llm.generate(rows, params)
    assert fits.error is None and len(fits.outputs[0].token_ids) == 1 and plain.error is None
    assert long.error is not None and long.error.code == "context_length_exceeded"


def test_a_job_counts_and_echoes_the_prompt_alone(base: Path, lora: dict[str, str], tmp_path: Path) -> None:
    rows = [{"prompt": SHARED, "max_tokens": 3, "temperature": 0, **({"lora": n} if n else {})} for n in NAMES]
    rows.append({"prompt": [7] * 2000, "lora": "other"})
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    umbel.run(source, target, model=str(base), dtype="float32", device="cpu", lora=lora, quiet=True)
    found = [json.loads(line) for line in target.read_text().splitlines()]
    wanted = LLM(str(base), dtype="float32", device="cpu", lora=lora).generate(
        [SHARED] * len(NAMES), [SamplingParams(temperature=0, max_tokens=3, lora=name) for name in NAMES]
    )
    for row, answer in zip(found, wanted, strict=False):
        assert row["usage"]["prompt_tokens"] == len(SHARED) and row["text"] == answer.outputs[0].text
    assert found[-1]["error"]["code"] == "context_length_exceeded"


def test_what_it_cannot_be_used_for(base: Path, lora: dict[str, str]) -> None:
    llm = LLM(str(base), dtype="float32", device="cpu", threads=1, lora=lora)
    asked = SamplingParams(pooling_params=PoolingParams(), lora="kv")
    with llm.session() as session:
        session.add(SHARED, asked)
        session.close()
        (event,) = session
    assert event.output is not None and event.output.error is not None
    assert "vectors are given without it" in event.output.error.message
    with pytest.raises(UsageError, match="a soft prompt belongs to the plan"):
        llm.generate([SHARED], lora_request=umbel.LoRARequest("new", 9, lora["kv"]))


REFUSED = {
    "positions": ({"num_virtual_tokens": 0}, "num_virtual_tokens=0"),
    "shape": ({"num_virtual_tokens": 8}, r"prompt_embeddings is \[9, \d+\] of F32, this model makes it \[8,"),
    "layers": ({"num_layers": 7}, "num_layers=7: this model makes it 2: is it of another model"),
    "heads": ({"num_attention_heads": 3}, "num_attention_heads=3"),
    "task": ({"task_type": "SEQ_CLS"}, "task_type='SEQ_CLS'"),
    "modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "other": ({"something": 1}, "something=1: this is not supported"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_is_not_computed_is_refused_by_name(case: str, base: Path, lora: dict[str, str], tmp_path: Path) -> None:
    change, text = REFUSED[case]
    width = LLM(str(base), device="cpu", lora=lora).spec.adapters[0].numbers // 9
    made = write_soft_prompt(tmp_path / "bad", "PREFIX_TUNING", (9, width), **change)
    with pytest.raises(ModelError, match=f"adapter 'bad' .*{text}"):
        LLM(str(base), device="cpu", lora={"bad": str(made)})


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("lfm2", "PROMPT_TUNING", "keep states in layers"),
        ("gemma2", "P_TUNING", "scale their embeddings"),
    ],
)
def test_models_that_cannot_have_one_are_named(name: str, kind: str, text: str, tmp_path: Path) -> None:
    make_zoo_model(tmp_path / "model", name)
    made = write_soft_prompt(tmp_path / "soft", kind, (4, 64))
    with pytest.raises(ModelError, match=f"adapter 'a' .*{text}"):
        LLM(str(tmp_path / "model"), device="cpu", lora={"a": str(made)})


@pytest.mark.nightly
def test_soft_prompts_on_the_kernels_of_gpus(base: Path, lora: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")
    params = [SamplingParams(temperature=0.0, max_tokens=2, lora=name) for name in ("kv", "soft")]
    wanted = LLM(str(base), dtype="float32", device="cpu", lora=lora).generate(PROMPTS[:2], params)
    if not torch.cuda.is_available():
        made = on_gpu_kernels(monkeypatch)
    got = LLM(str(base), dtype="float32", device="auto", lora=lora).generate(PROMPTS[:2], params)
    assert [o.outputs[0].token_ids for o in got] == [o.outputs[0].token_ids for o in wanted]
    assert torch.cuda.is_available() or made, "the kernels were not asked"

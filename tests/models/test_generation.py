"""Defaults of generation_config.json: applied as vLLM applies them, said, overruled by rows, left out on request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.batch.call import run
from umbel.errors import ModelError, UsageError
from umbel.ir.params import SamplingParams
from umbel.models.families import read_spec

STATED = {
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.95,
    "top_k": 20,
    "min_p": 0.05,
    "repetition_penalty": 1.05,
    "max_new_tokens": 12,
}
WANTED = SamplingParams(temperature=0.6, top_p=0.95, top_k=20, min_p=0.05, repetition_penalty=1.05, max_tokens=12)
PROMPTS = [[5 + i, 6, 7, 8] for i in range(6)]


def model_with(directory: Path, **stated: Any) -> str:
    made = make_model(directory, "llama", seed=3)
    (made / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, **stated}))
    return str(made)


def test_defaults_are_those_of_vllm(tmp_path: Path) -> None:
    directory = model_with(tmp_path / "m", **STATED)
    (note,) = read_spec(Path(directory)).notes
    assert note == (
        "temperature 0.6, top_p 0.95, top_k 20, min_p 0.05, repetition_penalty 1.05, max_tokens 12 from "
        "generation_config.json, for rows that do not set them; --generation-config vllm leaves it out"
    )
    with LLM(directory, device="cpu", dtype="float32", threads=1) as llm:
        assert llm.get_default_sampling_params() == WANTED
        by_default, as_said = llm.generate(PROMPTS, keys=range(6)), llm.generate(PROMPTS, WANTED, keys=range(6))
        assert [o.outputs[0].token_ids for o in by_default] == [o.outputs[0].token_ids for o in as_said]
        assert note in " ".join(str(llm.plan(PROMPTS)).split())
    for choice in ("vllm", "none"):
        with LLM(directory, device="cpu", dtype="float32", threads=1, generation_config=choice) as llm:
            assert llm.get_default_sampling_params() == SamplingParams()
            assert any("repetition_penalty=1.05 is not applied" in note for note in llm.spec.notes)
    with pytest.raises(UsageError, match="generation_config='here': must be one of auto, vllm, none"):
        LLM(directory, generation_config="here")


def test_greedy_answers_are_those_of_generate(tmp_path: Path) -> None:
    """With nothing but the file, transformers and a job give the same."""
    directory = model_with(tmp_path / "m", repetition_penalty=1.3, max_new_tokens=16)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    wanted = []
    for prompt in PROMPTS:
        out = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, 4, dtype=torch.long), pad_token_id=0)
        wanted.append(out[0, 4:].tolist())
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"prompt": prompt, "temperature": 0}) + "\n" for prompt in PROMPTS))
    options = {"model": directory, "device": "cpu", "dtype": "float32", "threads": 1}
    summary = run(str(source), str(out), **options)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["token_ids"] for row in rows] == wanted
    assert any("repetition_penalty 1.3, max_tokens 16 from generation_config.json" in note for note in summary.notes)
    with pytest.raises(UsageError, match=r"default\.repetition_penalty"):  # another job
        run(str(source), str(out), **options, generation_config="vllm")


def test_rows_and_options_overrule_the_file(tmp_path: Path) -> None:
    directory = model_with(tmp_path / "m", temperature=0.0, max_new_tokens=5)
    source = tmp_path / "in.jsonl"
    rows = [{"prompt": [5, 6]}, {"prompt": [5, 6], "max_tokens": 3}, {"prompt": [5, 6], "max_tokens": None}]
    source.write_text("".join(json.dumps(row | {"ignore_eos": True}) + "\n" for row in rows))
    options = {"model": directory, "device": "cpu", "dtype": "float32", "threads": 1}
    for more, lengths in (({}, [5, 3, 5]), ({"max_tokens": 7}, [7, 3, 7])):
        out = tmp_path / f"{len(more)}.jsonl"
        run(str(source), str(out), **options, **more)
        answers = [json.loads(line)["token_ids"] for line in out.read_text().splitlines()]
        assert [len(ids) for ids in answers] == lengths
        assert answers[0][:3] == answers[1]


def test_completions_of_openai_keep_their_16_tokens(tmp_path: Path) -> None:
    """vLLM's `CompletionRequest.max_tokens` is 16 where a body has none, whatever the model's file says."""
    directory = model_with(tmp_path / "m", temperature=0.0, max_new_tokens=21)
    source = tmp_path / "in.jsonl"
    body = {"model": "m", "prompt": [5, 6], "ignore_eos": True}
    lines = [("/v1/completions", body), ("/v1/completions", body | {"max_tokens": 18})]
    rows = [{"custom_id": f"{i}", "method": "POST", "url": url, "body": body} for i, (url, body) in enumerate(lines)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"model": directory, "device": "cpu", "dtype": "float32", "threads": 1}
    for more, lengths in (({}, [16, 18]), ({"max_tokens": 20}, [20, 18])):
        out = tmp_path / f"{len(more)}.jsonl"
        run(str(source), str(out), **options, **more)
        answers = [json.loads(line)["response"]["body"] for line in out.read_text().splitlines()]
        assert [answer["usage"]["completion_tokens"] for answer in answers] == lengths


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"temperature": "hot"}, "temperature='hot': must be a number"),
        ({"top_p": 7}, "top_p=7: must be above 0 to 1"),
        ({"repetition_penalty": [1]}, "repetition_penalty"),
        ({"max_new_tokens": 0}, "max_tokens=0: must be from 1"),
    ],
)
def test_a_value_that_no_row_may_have(stated: dict[str, Any], said: str, tmp_path: Path) -> None:
    directory = Path(model_with(tmp_path / "m", **stated))
    with pytest.raises(ModelError, match=r"generation_config\.json") as caught:
        read_spec(directory)
    assert said in str(caught.value) and "--generation-config vllm" in str(caught.value)
    assert read_spec(directory, generation_config="vllm").sampling == ()

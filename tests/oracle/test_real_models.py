"""The real small models under ../shared/data/models answer as their golden rows say (float64 numpy, one at a time)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from umbel.api import LLM
from umbel.ir.params import SamplingParams

MODELS = Path(__file__).parents[3] / "shared" / "data" / "models"
MARGIN = 1e-3  # below this first-to-second gap a float32 engine may choose otherwise; then the rest does not count


def golden(model: str, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (MODELS / model / name).read_text().splitlines()]


@pytest.fixture(scope="module", params=["stories260K", "tinystories-656k"])
def model(request: pytest.FixtureRequest) -> str:
    if not (MODELS / request.param / "golden_greedy.jsonl").is_file():
        pytest.skip(f"../shared/data/models/{request.param} is not here")
    return request.param


def matching_tokens(ids: tuple[int, ...], row: dict[str, Any]) -> int:
    """Tokens that agree before the first excused difference; fails at one that is not excused."""
    wanted = row["output_ids"]
    for i, (mine, theirs) in enumerate(zip(ids, wanted, strict=False)):
        if mine != theirs:
            assert row["margins"][i] < MARGIN, (row["prompt"][:60], i, mine, theirs, row["margins"][i])
            return i
    assert len(ids) == len(wanted)
    return len(wanted)


@pytest.mark.parametrize("name", ["golden_greedy.jsonl", "golden_long.jsonl"])
@pytest.mark.parametrize("options", [{}, {"chunk": 13}, {"kv_tokens": 1024, "chunk": 64}], ids=str)
def test_golden_rows(model: str, name: str, options: dict[str, int]) -> None:
    rows = golden(model, name)
    llm = LLM(str(MODELS / model), dtype="float32", device="cpu", threads=1, **options)
    params = [SamplingParams(temperature=0.0, max_tokens=len(row["output_ids"]), logprobs=0) for row in rows]
    outputs = llm.generate([row["prompt_ids"] for row in rows], params)
    agreed = 0
    for row, output in zip(rows, outputs, strict=True):
        assert output.error is None
        completion = output.outputs[0]
        n = matching_tokens(completion.token_ids, row)
        agreed += n
        assert completion.logprobs is not None
        mine = [t.logprob for t in completion.logprobs[:n]]
        assert mine == pytest.approx(row["output_logprobs"][:n], abs=2e-4)
        if n == len(row["output_ids"]):
            assert completion.finish_reason == {"eos": "stop", "length": "length"}[row["stop"]]
    total = sum(len(row["output_ids"]) for row in rows)
    print(f"{model} {name}: {agreed} of {total} tokens equal before the first excused difference")
    assert agreed >= 0.9 * total


def test_text_prompts_give_the_golden_ids_and_text(model: str) -> None:
    """From text to text through the tokenizer: the prompt's ids and the answer's words are the golden ones."""
    rows = golden(model, "golden_greedy.jsonl")
    llm = LLM(str(MODELS / model), dtype="float32", device="cpu", threads=1)
    params = [SamplingParams(temperature=0.0, max_tokens=len(r["output_ids"])) for r in rows]
    compared = 0
    for row, output in zip(rows, llm.generate([row["prompt"] for row in rows], params), strict=True):
        assert output.prompt_token_ids == row["prompt_ids"]
        if list(output.outputs[0].token_ids) == row["output_ids"] and row["stop"] == "length":
            # The golden text keeps the blank between prompt and answer; decoding the answer alone drops it.
            assert output.outputs[0].text.strip() == row["output_text"].strip()
            compared += 1
    assert compared >= 0.8 * len(rows)


def test_the_end_token_is_not_shown() -> None:
    model = "tinystories-656k"  # the only one with golden rows that end by its end token
    if not (MODELS / model / "golden_greedy.jsonl").is_file():
        pytest.skip(f"../shared/data/models/{model} is not here")
    (row,) = (row for row in golden(model, "golden_greedy.jsonl") if row["stop"] == "eos")
    llm = LLM(str(MODELS / model), dtype="float32", device="cpu", threads=1)
    (output,) = llm.generate([row["prompt"]], SamplingParams(temperature=0.0, max_tokens=20))
    assert output.outputs[0].text.strip() == row["output_text"].strip()

"""Prompts of which a draft model chooses what is read, against naive decoders, and what stays as it was."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import umbel
from tests.runner.naive_flow import NaiveDecoder
from tests.tiny_models import make_model
from umbel import LLM, SamplingParams
from umbel.config import EngineConfig
from umbel.cost.cut import PART
from umbel.demo.tasks import lookup
from umbel.engine.build import Model
from umbel.engine.draft_look import AHEAD, POOL, DraftLook
from umbel.engine.spec_prefill import SpecPrefill
from umbel.errors import UsageError
from umbel.ir.cut_workload import CutWorkload
from umbel.ir.workload import Workload

DRAWN = 6
GREEDY = SamplingParams(temperature=0.0, max_tokens=DRAWN, ignore_eos=True, logprobs=0)
SHARED = [j * 7 % 290 + 3 for j in range(50)]
OWN = [[(i * 31 + j * j * 5) % 290 + 3 for j in range(200 + 40 * i)] for i in range(3)]
PROMPTS = [[*SHARED, *own] for own in OWN]
KEEP = 0.4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("cut") / "model", "qwen3", seed=1)


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("cut") / "draft", "qwen3", seed=2)


def engine(model: Path, draft: Path, keep: float | None = KEEP, **options: Any) -> LLM:
    asked = {} if keep is None else {"technique": f"spec-prefill:keep={keep}", "allow_lossy": True}
    return LLM(str(model), speculate=f"model:{draft}", device="cpu", dtype="float32", **asked, **options)


class Script:
    """Says that some parts of a prompt count, by the position at which each begins."""

    def __init__(self, begins: Sequence[int]):
        self.begins = begins

    def look(self, prompt: np.ndarray) -> np.ndarray:
        at = np.arange(len(prompt))
        return sum(((at >= begin) & (at < begin + PART)) * (1.0 + i) for i, begin in enumerate(self.begins))


def cut_of(prompts: list[list[int]], look: Script, keep: float, **params: Any) -> CutWorkload:
    cut = SpecPrefill({"keep": keep}, look, 1000).cut(Workload.of(prompts, SamplingParams(**params)))
    assert isinstance(cut, CutWorkload)
    return cut


def test_the_best_parts_stay_with_the_first_and_the_last() -> None:
    """Parts are those of what a row shares with no other, and begin where that begins."""
    cut = cut_of([PROMPTS[0], [*SHARED, 299, 298]], Script([50 + 3 * PART, 50 + 5 * PART, 0]), 0.5)
    parts = [0, 3, 5, 6]  # of 7, of which the last has 8 tokens
    own = [50 + part * PART + i for part in parts for i in range(PART)]
    assert cut.at[0] is not None and cut.at[1] is None
    assert cut.at[0].tolist() == [*range(50), *(at for at in own if at < 250)]
    assert cut.prompt(0).tolist() == [PROMPTS[0][at] for at in cut.at[0]]
    assert cut.prompt(1).tolist() == [*SHARED, 299, 298] and cut.left_out == 3 * PART


def test_rows_stay_whole_whose_tokens_are_shared_or_scored() -> None:
    rule = SpecPrefill({"keep": 0.1}, Script([60]), 1000)
    for prompts, params in (([PROMPTS[0]] * 2, {}), ([PROMPTS[0]], {"prompt_logprobs": 0}), ([SHARED], {})):
        workload = Workload.of(prompts, SamplingParams(**params))
        assert (rule.cut(workload) is workload) == (prompts != [SHARED] or len(SHARED) <= 2 * PART)


def test_no_answer_goes_beyond_the_context() -> None:
    for asked, limit in ((None, 750), (20, 20), (800, 750)):
        assert cut_of([PROMPTS[0]], Script([60]), 0.2, max_tokens=asked).params[0].max_tokens == limit


def test_a_draft_looks_as_a_naive_decoder_does(draft: Path) -> None:
    """The last token and the next ones: the most of all layers and heads, smoothed, the mean of these tokens."""
    naive, prompt = NaiveDecoder(draft), PROMPTS[0]
    drawn, looks = list(prompt), []
    for _ in range(AHEAD):
        naive.weights.clear()
        drawn.append(int(naive.logits(drawn).argmax()))
        weights = torch.cat([each[:, : len(prompt)] for each in naive.weights])
        weights = weights / weights.sum(1, keepdim=True)  # of the prompt alone
        smooth = F.avg_pool1d(weights[None], POOL, 1, POOL // 2, count_include_pad=False)[0]
        looks.append(smooth.amax(0))
    model = Model(EngineConfig(str(draft), device="cpu", dtype="float32"))
    found = DraftLook(model).look(np.array(prompt, np.int32))
    np.testing.assert_allclose(found, torch.stack(looks).mean(0).numpy(), rtol=1e-4, atol=1e-7)


def test_answers_are_those_of_a_naive_decoder_that_reads_the_same(model: Path, draft: Path) -> None:
    """At the positions that the tokens had; behind them answers go on as behind the whole prompt."""
    llm, naive = engine(model, draft), NaiveDecoder(model)
    cut = llm.engine._cut.cut(Workload.of(PROMPTS, GREEDY))
    plan = llm.plan_for(Workload.of(PROMPTS, GREEDY))
    planned = plan.decision("prompt tokens read")
    assert planned.facts["out"] == cut.left_out > 300 and plan.estimates.computed_prompt_tokens == planned.value
    outputs = llm.generate(PROMPTS, GREEDY, use_tqdm=False)
    assert llm.engine.stats().computed_prompt_tokens == planned.value
    for row, output in enumerate(outputs):
        answer, ids, at = output.outputs[0], cut.prompt(row).tolist(), cut.at[row].tolist()
        assert list(output.prompt_token_ids) == PROMPTS[row] and answer.logprobs is not None
        for token, one in zip(answer.token_ids, answer.logprobs, strict=True):
            scores = naive.reading(ids, at).log_softmax(0)
            assert int(scores.argmax()) == token
            assert one[token].logprob == pytest.approx(float(scores.max()), abs=1e-5, rel=1e-5)
            ids, at = [*ids, token], [*at, at[-1] + 1]


def test_nothing_but_the_rows_of_a_plan_changes_an_answer(model: Path, draft: Path) -> None:
    """Chunks, preemption and proposed tokens do not; keep=1 is dense; rows beside one that is cut are what they are."""
    params = SamplingParams(temperature=0.7, seed=3, n=2, max_tokens=40, ignore_eos=True, logprobs=0)
    plain = [[5 + i, *SHARED[:20]] for i in range(2)]

    def answers(llm: LLM, prompts: list[list[int]] = PROMPTS) -> list[list[tuple[Any, float | None]]]:
        outputs = llm.generate([*prompts, *plain], params, use_tqdm=False)
        return [[(one.token_ids, one.cumulative_logprob) for one in output.outputs] for output in outputs]

    wanted, dense = answers(engine(model, draft)), answers(engine(model, draft, None))
    assert wanted[:3] != dense[:3] and wanted[3:] == dense[3:]
    assert answers(engine(model, draft, chunk=17)) == wanted
    tight = engine(model, draft, kv_tokens=480, admission="aggressive")
    assert answers(tight) == wanted and tight.engine.stats().preemptions
    assert answers(engine(model, draft, 1)) == dense


@pytest.mark.slow
def test_a_draft_chooses_better_than_chance() -> None:
    """Which line of a table is asked for: the demo model as a draft of its own knows, and the smaller one does not; by
    chance at the same share."""
    rng = random.Random(4)
    items = [lookup.item(rng, "eval", 500) for _ in range(16)]
    prompts = [{"messages": [{"role": "user", "content": item.prompt}]} for item in items]
    right = {}
    for name in ("draft", "chance"):
        llm = LLM("demo", speculate="model:demo", technique="spec-prefill:keep=0.4", allow_lossy=True, device="cpu")
        if name == "chance":
            noise = np.random.default_rng(0)
            llm.engine._cut.draft.look = lambda prompt, noise=noise: noise.random(len(prompt))
        outputs = llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=24), use_tqdm=False)
        right[name] = sum(o.outputs[0].text.strip() == item.answer for o, item in zip(outputs, items, strict=True))
    assert right["draft"] >= right["chance"] + 4, right


def test_a_job_answers_as_its_rows_in_one_call_do(model: Path, draft: Path, tmp_path: Path) -> None:
    """Rows of a file are cut as they come, and the report has what was planned beside what was computed."""
    rows = [{"prompt": prompt, "max_tokens": DRAWN, "temperature": 0.0, "ignore_eos": True} for prompt in PROMPTS]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"device": "cpu", "dtype": "float32", "speculate": f"model:{draft}", "allow_lossy": True, "quiet": True}
    asked, out = [f"spec-prefill:keep={KEEP}"], tmp_path / "out.jsonl"
    assert umbel.run(tmp_path / "in.jsonl", out, model=str(model), technique=asked, **options).ok == len(PROMPTS)
    found = [json.loads(line)["text"] for line in out.read_text(encoding="utf-8").splitlines()]
    llm = engine(model, draft)
    outputs = llm.generate(PROMPTS, GREEDY, use_tqdm=False)
    assert found == [output.outputs[0].text for output in outputs]
    whole = sum(map(len, PROMPTS)) - 2 * len(SHARED)
    stats = llm.engine.stats()
    assert stats.left_out_tokens == whole - stats.computed_prompt_tokens > 300


def test_what_cannot_be_is_refused_by_name(model: Path, draft: Path, tmp_path: Path) -> None:
    lossy = {"technique": "spec-prefill", "allow_lossy": True, "device": "cpu"}
    with pytest.raises(UsageError, match=r"a draft model chooses what is read; name it by speculate='model:PATH'"):
        LLM(str(model), **lossy)
    with pytest.raises(UsageError, match="keep='lru' keeps prompts for rows to come"):
        LLM(str(model), speculate=f"model:{draft}", keep="lru", **lossy)
    with pytest.raises(UsageError, match="sessions keep prompts for rows to come"), engine(model, draft).session():
        pass
    for other in ("pages", "h2o", "swiftkv"):
        with pytest.raises(UsageError, match="give one of them"):
            EngineConfig("demo", technique=("spec-prefill", other), allow_lossy=True)
    narrow = make_model(tmp_path / "narrow", "mistral", sliding_window=64)
    with pytest.raises(UsageError, match="windows of 64 positions"):
        LLM(str(narrow), speculate=f"model:{draft}", **lossy)

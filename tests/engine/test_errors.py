"""Rows that cannot be run: their error, and neighbours that do not notice."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.tiny_models import make_model
from umbel.api import LLM, RequestOutput
from umbel.ir.params import SamplingParams
from umbel.linear.dense import DenseMethod

PARAMS = SamplingParams(temperature=0.8, seed=3, max_tokens=16, ignore_eos=True, logprobs=2)
GOOD = [[20, 21, 22, i, 7] for i in range(20)]


def answers(llm: LLM, prompts: list[Any], params: SamplingParams = PARAMS) -> list[RequestOutput]:
    return llm.generate(prompts, params)


BAD = {
    "empty": ([], "empty_prompt"),
    "id too large": ([1, 300], "invalid_token_id"),
    "negative id": ([-1], "invalid_token_id"),
    "half an id": ([1, 2.5], "invalid_type"),
    "a boolean": ([True, 1], "invalid_type"),
    "a word among ids": ([1, "a"], "invalid_type"),
    "too long": ([5] * 513, "context_length_exceeded"),
    "nothing": (None, "invalid_type"),
    "a number": (7.5, "invalid_type"),
    "an object without a prompt": ({"text": "x"}, "missing_required_parameter"),
    "an empty text": ("", "empty_prompt"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_prompt_is_an_error_row_and_its_neighbours_do_not_notice(llm: LLM, name: str) -> None:
    bad, code = BAD[name]
    # The neighbours keep their places, as a row's number keys its randomness.
    plain = answers(llm, [*GOOD[:7], [1], *GOOD[7:]])
    got = answers(llm, [*GOOD[:7], bad, *GOOD[7:]])
    assert got[7].error is not None and got[7].error.code == code and not got[7].outputs
    assert [o.outputs for i, o in enumerate(got) if i != 7] == [o.outputs for i, o in enumerate(plain) if i != 7]


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """A model whose embedding of id 31 is NaN: rows that hold it break, in the middle of the batch."""
    directory = make_model(tmp_path_factory.mktemp("nan") / "llama", "llama", seed=3)
    llm = LLM(str(directory), dtype="float32", device="cpu", threads=1, chunk=16, kv_tokens=1024)
    decoder = llm.engine.model.decoder
    weights = decoder.embedding.rows(torch.arange(decoder.spec.vocab_size))
    weights[31] = torch.nan
    decoder.embedding = DenseMethod().convert_table(weights)
    return llm


@pytest.mark.parametrize("n", [1, 3])
def test_logits_that_are_not_finite_end_their_row_only(llm: LLM, poisoned: LLM, n: int) -> None:
    """Bad rows share prefixes with good ones, before the bad token; their pages are used again by others."""
    params = replace(PARAMS, n=n)
    prompts = [[*p[:3], 31, *p] if i % 4 == 1 else p * 5 for i, p in enumerate(GOOD)]
    got = answers(poisoned, prompts, params)
    assert [i for i, o in enumerate(got) if o.error is not None] == list(range(1, 20, 4))
    assert all(o.error.code == "non_finite_logits" and not o.outputs for o in got if o.error is not None)
    plain = answers(llm, prompts, params)
    drawn = {t for o in plain for c in o.outputs for t in c.token_ids}
    assert 31 not in drawn, "the token that breaks rows must not be drawn: choose another"
    assert all(i % 4 == 1 or mine.outputs == plain[i].outputs for i, mine in enumerate(got))


def test_a_row_beyond_the_pool_is_an_error_row(llm: LLM) -> None:
    small = LLM(str(llm.engine.model.directory), dtype="float32", device="cpu", threads=1, kv_tokens=128)
    prompts = [[3, 4, 5], [8] * 300, [3, 4, 6]]
    got = answers(small, prompts)
    assert got[1].error is not None and got[1].error.code == "kv_capacity_exceeded" and "128" in got[1].error.message
    plain = answers(llm, prompts)
    assert [got[i].outputs for i in (0, 2)] == [plain[i].outputs for i in (0, 2)]


def test_a_row_that_cannot_fit_is_not_computed(llm: LLM) -> None:
    """One for its prompt, one for what it surely generates; one that may end early gets its chance."""
    small = LLM(str(llm.engine.model.directory), dtype="float32", device="cpu", threads=1, kv_tokens=128)
    prompts = [[3, 4, 5], [8] * 300, [9] * 20, [9] * 20, [3, 4, 6]]
    sure, open_ended = (
        replace(PARAMS, ignore_eos=True, max_tokens=200),
        replace(PARAMS, ignore_eos=False, max_tokens=200),
    )
    got = answers(small, prompts, [PARAMS, PARAMS, sure, replace(sure, max_tokens=97), PARAMS])
    codes = [o.error and o.error.code for o in got]
    assert codes == [None, "kv_capacity_exceeded", "kv_capacity_exceeded", None, None]
    assert "20 tokens and 200 to generate" in got[2].error.message and "--retry-failed" in got[2].error.message
    assert small.stats().computed_prompt_tokens <= 3 + 20 + 3
    assert small.stats().steps < 150
    alone = answers(small, [[9] * 20], open_ended)
    assert alone[0].error is None or "generated" in alone[0].error.message


def test_closing_the_generator_frees_everything(llm: LLM) -> None:
    llm = LLM(str(llm.engine.model.directory), dtype="float32", device="cpu", threads=1, chunk=64)
    long = replace(PARAMS, max_tokens=200)
    before = llm.stats()
    stream = llm.stream(GOOD, [replace(PARAMS, max_tokens=2), *[long] * 19])
    first = next(stream)
    assert first.request_id == "0" and llm.engine.loops
    loop = weakref.ref(llm.engine.loops[0])
    store = llm.engine.loops[0].runner.attention.store
    during = llm.stats()
    assert during.rows_done == before.rows_done + 1 and during.output_tokens > before.output_tokens
    stream.close()
    gc.collect()
    assert not llm.engine.loops and loop() is None
    assert llm.stats() == during, "what was run before the close stays counted"
    stream = llm.stream(GOOD[:1], PARAMS)
    next(stream)
    assert llm.engine.loops[0].runner.attention.store is store, "the next run has its memory"
    store, held = weakref.ref(store), store.n_pages
    stream.close()
    many = [[3, i, *[5] * 98] for i in range(16 * held // 100 + 2)]
    assert all(o.error is None for o in llm.generate(many, PARAMS))  # needs more, so it gets its own
    gc.collect()
    assert store() is None
    assert [o.outputs for o in answers(llm, GOOD)] == [o.outputs for o in answers(llm, GOOD)]


def test_rows_come_as_they_finish(llm: LLM) -> None:
    lengths = [30, 5, 20, 1, 10]
    params = [replace(PARAMS, max_tokens=length) for length in lengths]
    stream = llm.stream(GOOD[:5], params)
    order, tokens = [], []
    for output in stream:
        order.append(int(output.request_id))
        tokens.append(llm.stats().output_tokens)
    assert order == [3, 1, 4, 2, 0]
    assert tokens == sorted(tokens) and len(set(tokens)) == 5, "a row was held back until a later one was done"
    listed = llm.generate(GOOD[:5], params)
    assert [o.request_id for o in listed] == ["0", "1", "2", "3", "4"]
    assert [len(o.outputs[0].token_ids) for o in listed] == lengths


def test_stats_add_up(llm: LLM) -> None:
    before = llm.stats()
    prompts = [[*range(3, 60), 100 + i] for i in range(10)]
    outputs = answers(llm, prompts, replace(PARAMS, n=2))
    after = llm.stats()
    assert after.rows_done - before.rows_done == 10
    assert after.prompt_tokens - before.prompt_tokens == 10 * 58
    assert after.computed_prompt_tokens - before.computed_prompt_tokens == 57 + 10
    assert after.output_tokens - before.output_tokens == sum(len(c.token_ids) for o in outputs for c in o.outputs)
    assert after.recomputed_tokens == before.recomputed_tokens and after.steps > before.steps
    assert after.kv_tokens_read > before.kv_tokens_read and after.kv_peak_tokens >= 67


@pytest.mark.parametrize("chat", [False, True])
def test_a_text_that_is_far_too_long_is_not_tokenised(llm: LLM, chat: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("encode", "encode_rendered"):
        monkeypatch.setattr(llm.tokenizer, name, lambda *texts: pytest.fail("it was tokenised"))
    text = " " * (2**20 + 1)
    bad, good = answers(llm, [{"messages": [{"role": "user", "content": text}]} if chat else text, GOOD[0]])
    assert bad.error is not None and bad.error.code == "context_length_exceeded"
    assert "characters" in bad.error.message and good.error is None

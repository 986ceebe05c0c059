"""Bad words as vLLM tokenises them, and answers that never complete one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.errors import InvalidRequest
from umbel.ir.params import SamplingParams
from umbel.models.families import resolve_model
from umbel.text.tokenizer import Tokenizer

DEMO = Tokenizer.load(resolve_model("demo"))


def vllms_runs(words: list[str]) -> list[list[int]]:
    """By vLLM's rule, word by word: bare, and with a blank in front where that gives as many tokens that begin with
    another one."""
    found: list[list[int]] = []
    for word in words:
        bare, spaced = DEMO.encode([word.lstrip(), " " + word.lstrip()], add_special_tokens=False)
        found.append(bare)
        if len(spaced) == len(bare) and spaced[0] != bare[0]:
            found.append(spaced)
    return found


def test_words_with_and_without_a_blank() -> None:
    words = ["the", " and", "Once upon", "x", "\nno", "girl was", "été"]
    assert [list(run) for run in DEMO.word_runs.of(tuple(words))] == vllms_runs(words)
    with pytest.raises(InvalidRequest, match="token ids are from 0 to 9"):
        DEMO.word_runs.check(("the",), 10)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_never_complete_a_bad_word(tmp_path: Path, temperature: float) -> None:
    """What a model says when a word is forbidden is right up to where it would have said it, and never says it."""
    llm = LLM(str(make_model(tmp_path / "llama", "llama", seed=3)), dtype="float32", device="cpu", threads=1)
    prompts = [[5 + i, 6, 7, 8] for i in range(6)]
    base = SamplingParams(temperature=temperature, max_tokens=24, ignore_eos=True, seed=4)
    plain = [output.outputs[0] for output in llm.generate(prompts, base)]
    words = [text.strip() for one in plain if len(text := llm.get_tokenizer().decode(list(one.token_ids[6:8]))) > 1]
    words = [word for word in words if word]
    assert llm.tokenizer is not None and words
    runs = llm.tokenizer.word_runs.of(tuple(words))
    assert any(len(run) > 1 for run in runs)
    hit = 0
    for before, output in zip(plain, llm.generate(prompts, base.clone(bad_words=words)), strict=True):
        ids, old = output.outputs[0].token_ids, before.token_ids
        assert not any(ids[at : at + len(run)] == run for run in runs for at in range(len(ids)))
        ends = [at + len(run) - 1 for run in runs for at in range(len(old)) if old[at : at + len(run)] == run]
        assert ids[: min(ends, default=len(old))] == old[: min(ends, default=len(old))]
        hit += bool(ends)
    assert hit


def test_words_of_one_token_stay_forbidden_beside_longer_ones() -> None:
    """Two watchers say so, of which one has nothing to forbid in most steps."""
    llm = LLM("demo", dtype="float32", device="cpu", threads=1)
    params = SamplingParams(temperature=0.0, max_tokens=12, bad_words=["a"])
    (alone,) = llm.generate("Once upon a time", params)
    (both,) = llm.generate("Once upon a time", params.clone(bad_words=["a", "qqq xx"]))
    (neither,) = llm.generate("Once upon a time", params.clone(bad_words=[]))
    assert both.outputs[0].token_ids == alone.outputs[0].token_ids != neither.outputs[0].token_ids

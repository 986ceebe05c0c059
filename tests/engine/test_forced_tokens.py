"""Tokens that a form leaves no choice of, computed several in a step: those that decoding one by one gives, with
the same log-probabilities, in fewer steps."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from tests.engine.test_gpu_path import on_gpu_kernels
from tests.engine.test_grammar import FORMS, PROMPT, form, ids_of
from tests.parameters import few_of
from umbel.api import LLM
from umbel.engine.request_output import RequestOutput
from umbel.errors import InvalidRequest
from umbel.ir.params import SamplingParams
from umbel.ir.structured import StructuredOutputsParams
from umbel.models.families import resolve_model
from umbel.runner.ahead import AheadTorchRunner
from umbel.text.grammars import Grammars
from umbel.text.tokenizer import Tokenizer

pytest.importorskip("llguidance", reason="llguidance is not installed here")

KEYS = ("identification", "a rather long name", "comment")
PERSON = {
    "type": "object",
    "properties": {KEYS[0]: {"enum": ["first", "second"]}, KEYS[1]: {"type": "boolean"}, KEYS[2]: {"maxLength": 5}},
    "required": list(KEYS),
    "additionalProperties": False,
}
PERSON["properties"][KEYS[2]]["type"] = "string"  # type: ignore[index]
FORM = form(json=PERSON, disable_any_whitespace=True)
LONG = [*(asked for asked, _ in FORMS), FORM, form(regex="(abcdefgh|abcdefxyz)[0-9]{2} and no more than that")]


@pytest.fixture(scope="module")
def demo() -> LLM:
    return LLM("demo", dtype="float32", device="cpu", threads=1)


def allowed(matcher: Any) -> list[int]:
    bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    return np.flatnonzero(np.unpackbits(bits, bitorder="little")).tolist()


@pytest.mark.parametrize("asked", few_of(LONG[-2:], LONG[:-2]))
def test_tokens_are_certain_where_the_mask_has_one(asked: StructuredOutputsParams) -> None:
    """Along random answers: what is forced is what the masks say one by one, up to where there is a choice or the end;
    a state that goes back allows what it allowed before."""
    tokenizer, rng, seen = Tokenizer.load(resolve_model("demo")), random.Random(3), 0
    masker = tokenizer.masker(Grammars, tokenizer.vocab_size, (2,))
    for _ in range(12):
        state, one_by_one = masker.start(asked), masker.start(asked)
        while (choice := allowed(state)) != [2]:
            most = rng.choice([1, 2, 50])
            found, wanted = masker.forced(state, most), list[int]()
            while len(wanted) < most and len(only := allowed(one_by_one)) == 1 and only != [2]:
                wanted += only
                one_by_one.consume_token(*only)
            assert found == wanted
            seen += len(found)
            if found and rng.random() < 0.3:
                masker.back(state, len(found))
                assert allowed(state) == choice and masker.advance(state, found) is None
            if (choice := allowed(state)) != [2]:
                token = rng.choice(choice)
                if token == 2:
                    break
                assert masker.advance(state, [token]) is None and one_by_one.consume_token(token)
    assert seen > 5


def one_by_one(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("umbel.engine.watch.grammar.Grammar.forced", lambda *_: None)


def rows(**more: Any) -> list[SamplingParams]:
    """A row for each form, hot, and one without."""
    asked = [{"structured_outputs": one} for one in LONG] + [{}]
    return [
        SamplingParams(**{"temperature": 2.0, "max_tokens": 60, "seed": 5, "logprobs": 2} | one | more) for one in asked
    ]


def said(outputs: list[RequestOutput]) -> list[Any]:
    return [
        (output.error, [(c.token_ids, c.text, c.finish_reason, c.stop_reason, c.logprobs) for c in output.outputs])
        for output in outputs
    ]


@pytest.mark.parametrize(
    "more",
    few_of(
        [
            {"n": 3},
            {"max_tokens": 7},
        ],
        [
            {"stop": ["rather", "no"], "presence_penalty": 1.5, "min_tokens": 2},
            {"logit_bias": {40: 3.0}, "repetition_penalty": 1.3},
            {"bad_words": ["e", "and no"], "prompt_logprobs": 1},
            {"temperature": 0.0, "logprobs": None},
        ],
    ),
)
def test_the_same_as_one_by_one(demo: LLM, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]) -> None:
    params = rows(**more)
    before = demo.stats()
    together = demo.generate([PROMPT] * len(params), params)
    forced = demo.stats().forced_tokens - before.forced_tokens
    one_by_one(monkeypatch)
    assert said(together) == said(demo.generate([PROMPT] * len(params), params))
    assert forced > 10


def test_fewer_steps_and_as_many_tokens(demo: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(temperature=1.0, seed=2, max_tokens=60, structured_outputs=FORM)
    with LLM("demo", dtype="float32", device="cpu", threads=1) as other:
        (output,) = other.generate(PROMPT, params)
        n, stats = len(output.outputs[0].token_ids), other.stats()
    assert stats.forced_tokens > n / 2 and stats.output_tokens == n
    assert stats.steps == n - stats.forced_tokens and stats.drafted_tokens == 0


def test_in_a_pool_too_small_for_all(demo: LLM) -> None:
    params = rows(n=4, logprobs=None)
    wanted = ids_of(demo.generate([PROMPT] * len(params), params))
    tight = LLM(
        "demo", dtype="float32", device="cpu", threads=1, kv_tokens=112, admission="aggressive", speculate="ngram"
    )
    with tight:
        assert ids_of(tight.generate([PROMPT] * len(params), params)) == wanted
        assert tight.stats().preemptions > 0 and tight.stats().forced_tokens > 20


def test_a_runner_that_works_ahead(demo: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    params = rows(n=2)
    wanted = said(demo.generate([PROMPT] * len(params), params))
    monkeypatch.setattr("umbel.engine.build.TorchRunner", lambda *parts: AheadTorchRunner(*parts[:3]))
    assert said(demo.generate([PROMPT] * len(params), params)) == wanted


@pytest.mark.slow
def test_the_kernels_of_gpus(demo: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(temperature=1.0, seed=2, max_tokens=14, structured_outputs=FORM)
    wanted = ids_of(demo.generate(PROMPT, params))
    made, before = on_gpu_kernels(monkeypatch), demo.stats().forced_tokens
    assert ids_of(demo.generate(PROMPT, params)) == wanted and made
    assert demo.stats().forced_tokens > before


def test_forms_are_compiled_meanwhile_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By who wants one first; what cannot be compiled is said to who asks for it."""
    masker, made = Tokenizer.load(resolve_model("demo")).masker(Grammars, 2592, (2,)), list[StructuredOutputsParams]()
    compiled = masker._compile
    monkeypatch.setattr(masker, "_compile", lambda asked: (made.append(asked), compiled(asked))[1])
    asked = [form(regex=f"[a-z]{{{n}}}") for n in range(1, 30)]
    thread = masker.prepare([form(json={"$ref": "#"}), *asked])
    states = [masker.start(one) for one in reversed(asked)]
    thread.join(30)
    assert not thread.is_alive() and sorted(made[i].definition for i in range(len(made))) == sorted(
        one.definition for one in [form(json={"$ref": "#"}), *asked]
    )
    assert masker.forced(states[0], 3) == [] and masker.start(asked[0]) is not states[-1]
    with pytest.raises(InvalidRequest):
        masker.start(form(json={"$ref": "#"}))

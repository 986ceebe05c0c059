"""Answers of a given form: masks against every text that the form allows, tokens against transformers with these masks,
and the same tokens whatever else a row asks for or goes through."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.test_gpu_path import on_gpu_kernels
from tests.engine.test_session import finished
from umbel.api import LLM
from umbel.engine.request_output import RequestOutput
from umbel.errors import InvalidRequest
from umbel.ir.params import SamplingParams
from umbel.ir.structured import StructuredOutputsParams
from umbel.ir.token_masks import unpacked
from umbel.models.families import resolve_model
from umbel.runner.ahead import AheadTorchRunner
from umbel.text.grammars import Grammars
from umbel.text.tokenizer import Tokenizer

pytest.importorskip("llguidance", reason="llguidance is not installed here")

PROMPT = "Say it: "
FIELDS = {"a": {"enum": ["x", "xyz", 1, None]}, "b": {"type": "boolean"}, "c": {"enum": [[1, "é"], {"k": "\\"}]}}
TIGHT = {"disable_any_whitespace": True}


def form(**asked: Any) -> StructuredOutputsParams:
    return StructuredOutputsParams(**asked)


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def objects() -> Iterable[str]:
    """Every text of the schema of FIELDS, of which `a` is required."""
    for a, b, c in product(FIELDS["a"]["enum"], (None, True, False), (None, *FIELDS["c"]["enum"])):  # type: ignore[misc]
        rest = {"b": b, "c": c}
        yield compact({"a": a} | {name: value for name, value in rest.items() if value is not None})


def dates() -> Iterable[str]:
    return (f"{y}-{m:02}" for y in ("19", "20") for m in range(100) if re.fullmatch("0[1-9]|1[0-2]", f"{m:02}"))


CHOICES = ("yes", "yes, sure", "no", 'a "q"\n\\', "日本", "yés")
FORMS: list[tuple[StructuredOutputsParams, list[str]]] = [
    (form(choice=CHOICES), list(CHOICES)),
    (form(regex="(19|20)-(0[1-9]|1[0-2])"), list(dates())),
    (
        form(json={"type": "object", "properties": FIELDS, "required": ["a"], "additionalProperties": False}, **TIGHT),
        list(objects()),
    ),
    (form(grammar='start: "(" item ")"\nitem: "a" "b"? | "c"'), ["(a)", "(ab)", "(c)"]),
    (form(grammar='root ::= "<" [0-2] [x-y]? ">"'), [f"<{i}{x}>" for i in "012" for x in ("", "x", "y")]),
]
IDS = ["choice", "regex", "json", "lark", "gbnf"]
EACH = pytest.mark.parametrize(("asked", "texts"), FORMS, ids=IDS)


@pytest.fixture(scope="module")
def demo() -> LLM:
    return LLM("demo", dtype="float32", device="cpu", threads=1)


class Oracle:
    """Which tokens may come next, by a look at every text of a form and every token of a vocabulary. Of tokens with the
    same bytes, such as a letter and the byte that it is, the last one may."""

    def __init__(self, tokenizer: Tokenizer, texts: list[str], end: int):
        self.pieces = tokenizer.token_bytes(range(tokenizer.vocab_size))
        self.texts, self.end = [text.encode() for text in texts], end
        special = tokenizer.special_ids
        self.by_bytes = {piece: i for i, piece in enumerate(self.pieces) if piece and i not in special}

    def allowed(self, so_far: bytes) -> set[int]:
        rest = [text[len(so_far) :] for text in self.texts if text.startswith(so_far)]
        beginnings = {one[:n] for one in rest for n in range(1, len(one) + 1)}
        return {self.by_bytes[one] for one in beginnings & self.by_bytes.keys()} | (
            {self.end} if b"" in rest else set()
        )


@EACH
def test_masks_allow_what_some_text_goes_on_with(asked: StructuredOutputsParams, texts: list[str]) -> None:
    """All of it, or where there is one way to go on the first token that its text is usually made of."""
    tokenizer = Tokenizer.load(resolve_model("demo"))
    width, rng = tokenizer.vocab_size, random.Random(1)
    oracle, compared = Oracle(tokenizer, texts, 2), 0
    for _ in range(40):
        matcher, so_far, token = tokenizer.masker(Grammars, width, (2,)).start(asked), b"", -1
        while token != 2:
            words = np.frombuffer(matcher.compute_bitmask(), np.uint32)
            got = set(np.flatnonzero(unpacked(words, width)).tolist())
            fine, forced = oracle.allowed(so_far), matcher.compute_ff_tokens()
            assert got == ({forced[0]} if forced else fine) and got <= fine, so_far
            token, compared = rng.choice(sorted(got)), compared + 1
            assert matcher.consume_token(token)
            so_far += oracle.pieces[token] if token != 2 else b""
        assert so_far.decode() in texts
    assert compared > 80


@torch.inference_mode()
def masked_greedy(model: Any, prompt: list[int], matcher: Any, width: int) -> tuple[list[int], float]:
    """What transformers answers if the most likely of the allowed tokens is taken each time, and the least lead."""
    ids, lead = list(prompt), np.inf
    while ids[-1] != 2:
        logits = model(torch.tensor([ids])).logits[0, -1].float()
        fine = torch.tensor(np.flatnonzero(unpacked(np.frombuffer(matcher.compute_bitmask(), np.uint32), width)))
        best = logits[fine].topk(min(2, len(fine)))
        lead = min(lead, float(best.values[0] - best.values[-1])) if len(fine) > 1 else lead
        ids.append(int(fine[best.indices[0]]))
        assert matcher.consume_token(ids[-1])
    return ids[len(prompt) :], lead


def test_greedy_tokens_are_those_of_transformers_with_the_same_masks(demo: LLM) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(resolve_model("demo"), dtype=torch.float32).eval()
    prompts = [PROMPT, "Date: 20-"]
    asked = [(prompt, *one) for prompt in prompts for one in FORMS]
    params = [SamplingParams(temperature=0.0, max_tokens=40, structured_outputs=one) for _, one, _ in asked]
    compared = 0
    grammars, width = demo.tokenizer.masker(Grammars, demo.spec.vocab_size, (2,)), demo.spec.vocab_size
    for (prompt, one, texts), output in zip(asked, demo.generate([p for p, _, _ in asked], params), strict=True):
        wanted, lead = masked_greedy(model, demo.tokenizer.encode([prompt])[0], grammars.start(one), width)
        if lead > 1e-3:
            compared += 1
            assert list(output.outputs[0].token_ids) == wanted
            assert output.outputs[0].text in texts and output.outputs[0].finish_reason == "stop"
    assert compared > 6


def hot(**more: Any) -> list[SamplingParams]:
    """Parameters of rows that draw at a high temperature, a row for each form."""
    return [
        SamplingParams(temperature=2.0, max_tokens=60, seed=5, structured_outputs=asked, **more) for asked, _ in FORMS
    ]


def ids_of(outputs: Iterable[RequestOutput]) -> list[list[tuple[int, ...]]]:
    return [[completion.token_ids for completion in output.outputs] for output in outputs]


def test_rows_get_the_same_alone_and_beside_others(demo: LLM) -> None:
    """n samples each, beside rows without a form; in a pool too small for all, where samples are computed again."""
    params = [*hot(n=6), SamplingParams(temperature=1.0, seed=3, max_tokens=30)]
    together = demo.generate([PROMPT] * len(params), params)
    for (_, texts), output in zip(FORMS, together, strict=False):
        assert all(c.text in texts and c.finish_reason == "stop" for c in output.outputs)
    alone = [demo.generate(PROMPT, one)[0] for one in params]
    assert ids_of(together) == ids_of(alone)
    with LLM("demo", dtype="float32", device="cpu", threads=1, kv_tokens=128, admission="aggressive") as tight:
        assert ids_of(tight.generate([PROMPT] * len(params), params)) == ids_of(together)
        assert tight.stats().preemptions > 0


def test_a_runner_that_works_ahead_gives_the_same(demo: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    params = [*hot(n=2), SamplingParams(temperature=1.0, seed=3, max_tokens=30)]
    wanted = ids_of(demo.generate([PROMPT] * len(params), params))
    monkeypatch.setattr("umbel.engine.build.TorchRunner", lambda *parts: AheadTorchRunner(*parts[:3]))
    assert ids_of(demo.generate([PROMPT] * len(params), params)) == wanted


@pytest.mark.nightly
def test_the_kernels_of_gpus_give_the_same(demo: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    params = [hot()[0], SamplingParams(temperature=1.0, seed=3, max_tokens=4)]
    wanted = ids_of(demo.generate([PROMPT] * len(params), params))
    made = on_gpu_kernels(monkeypatch)
    assert ids_of(demo.generate([PROMPT] * len(params), params)) == wanted and made


def test_with_proposed_tokens_the_same(demo: LLM) -> None:
    params = [*hot(), SamplingParams(temperature=0.0, max_tokens=40)]
    wanted = ids_of(demo.generate([PROMPT] * len(params), params))
    with LLM("demo", dtype="float32", device="cpu", threads=1, speculate="ngram") as other:
        assert ids_of(other.generate([PROMPT] * len(params), params)) == wanted


def test_forks_and_rows_taken_out_go_on_by_the_grammar(demo: LLM) -> None:
    asked = form(regex="[a-z]{12}")
    params = SamplingParams(temperature=2.0, seed=1, max_tokens=30, structured_outputs=asked)
    wanted = demo.generate(PROMPT, params)[0].outputs[0]
    with demo.session() as session:
        (ticket,) = session.add([PROMPT], params, stream=True)
        for _ in range(3):
            next(session)
        session.fork(ticket, 3)
        again = session.resume(session.abort(ticket))
        session.close()
        found = finished(session)
    assert found.pop(again)[0].token_ids == wanted.token_ids
    texts = [completions[0].text for completions in found.values()]
    assert len(texts) == 3 and all(re.fullmatch("[a-z]{12}", text) for text in texts)


@pytest.mark.parametrize(
    ("more", "finish", "fits"),
    [
        ({"max_tokens": 3}, "length", lambda text: 'a "q"'.startswith(text[:1]) or len(text)),
        ({"stop": ["e"]}, "stop", lambda text: text in ("y", "no", 'a "q"\n\\', "日本", "yés", "yes", "yes, sur")),
        ({"logprobs": 2}, "stop", lambda text: text in CHOICES),
        ({"min_tokens": 2}, "stop", lambda text: text in CHOICES),
    ],
)
def test_with_other_fields(demo: LLM, more: dict[str, Any], finish: str, fits: Callable[[str], object]) -> None:
    params = [
        SamplingParams(**{"temperature": 2.0, "max_tokens": 30, "seed": seed, "structured_outputs": FORMS[0][0]} | more)
        for seed in range(12)
    ]
    for output in demo.generate([PROMPT] * 12, params):
        (completion,) = output.outputs
        assert completion.finish_reason in (finish, "stop") and fits(completion.text)
        if "logprobs" in more:
            assert completion.logprobs is not None and len(completion.logprobs) == len(completion.token_ids)


def test_stop_token_ids_end_an_answer_only_where_it_may_end(demo: LLM) -> None:
    """A special token that the model does not name among its end tokens."""
    texts, end = FORMS[0][1], min(demo.tokenizer.special_ids - {2})
    params = SamplingParams(
        temperature=3.0, n=40, seed=2, max_tokens=30, stop_token_ids=(end,), structured_outputs=FORMS[0][0]
    )
    (output,) = demo.generate(PROMPT, params)
    ended = {completion.stop_reason for completion in output.outputs}
    assert ended == {None, end} and all(completion.text in texts for completion in output.outputs)


def test_a_row_that_cannot_be_followed_is_an_error_and_its_neighbours_go_on(demo: LLM) -> None:
    """More tokens than a form has, and grammars that no text fits or whose fault shows when they are compiled."""
    bad = [
        SamplingParams(max_tokens=9, min_tokens=8, structured_outputs=form(choice=["no"])),
        SamplingParams(max_tokens=9, structured_outputs=form(json={"$ref": "#"})),
        SamplingParams(max_tokens=9, structured_outputs=form(grammar='start: <|nosuch|> "a"')),
        SamplingParams(max_tokens=9, structured_outputs=form(grammar="start: " + '"a" ' * 90_000)),
    ]
    good = hot()
    outputs = demo.generate([PROMPT] * (len(bad) + len(good)), [*bad, *good])
    errors = [output.error for output in outputs[: len(bad)]]
    assert [error and error.code for error in errors] == ["no_token_left", *["invalid_grammar"] * 3]
    assert all(error is not None and len(error.message) < 400 for error in errors)
    assert ids_of(outputs[len(bad) :]) == ids_of(demo.generate([PROMPT] * len(good), good))


def test_tokens_given_to_an_answer_are_part_of_it(demo: LLM) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=30, structured_outputs=form(choice=["yes", "no"]))
    given = demo.tokenizer.encode(["n"], add_special_tokens=False)[0]
    with demo.session() as session:
        right, wrong = session.add([PROMPT, PROMPT + " "], params)
        session.append(right, given)
        session.append(wrong, demo.tokenizer.encode(["q"], add_special_tokens=False)[0])
        session.close()
        found = {event.ticket: event.output for event in session if event.kind in ("finished", "error")}
    assert found[right] and found[right].outputs[0].text == "no"
    assert found[wrong] and found[wrong].error and found[wrong].error.code == "grammar_failed"


def test_a_model_that_names_no_end_has_no_forms() -> None:
    with pytest.raises(InvalidRequest, match="eos_token_id"):
        Tokenizer.load(resolve_model("demo")).masker(Grammars, 2592, ())

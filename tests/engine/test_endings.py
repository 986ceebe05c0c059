"""How an answer ends: stop strings over token borders, stop ids, end tokens, limits; through the whole engine."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from umbel.api import LLM
from umbel.ir.params import SamplingParams
from umbel.ir.request import Completion
from umbel.ir.step import Sampling
from umbel.ir.token_masks import all_but
from umbel.runner.sampling import sample

FREE = SamplingParams(temperature=0.9, seed=1, max_tokens=40, ignore_eos=True)
PROMPTS = [[5 + i, 30, 40 + i] for i in range(30)]


@pytest.fixture(scope="module")
def free(llm: LLM) -> list[Completion]:
    """Answers that nothing ends but their length."""
    return [output.outputs[0] for output in llm.generate(PROMPTS, FREE)]


def tokens_until(llm: LLM, ids: tuple[int, ...], stop: str) -> int:
    """The fewest tokens whose text holds the stop string."""
    return next(k for k in range(1, len(ids) + 1) if stop in llm.tokenizer.decode(ids[:k]))


def stops_within(free: list[Completion], seed: int) -> list[str]:
    """For each answer a plain piece of its text, of one to six characters, wherever token borders fall."""
    rng, stops = random.Random(seed), []
    for completion in free:
        plain = [i for i, c in enumerate(completion.text) if c.isascii()]
        at = rng.choice(plain)
        piece = completion.text[at : at + rng.randint(1, 6)]
        stops.append(piece.split("\ufffd")[0] if piece.isascii() or "\ufffd" in piece else piece[0])
    return stops


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_stop_strings_cut_where_the_text_says(llm: LLM, free: list[Completion], seed: int, include: bool) -> None:
    stops = stops_within(free, seed)
    params = [replace(FREE, stop=(stop, "never in it"), include_stop_str_in_output=include) for stop in stops]
    crossing = 0
    for output, whole, stop in zip(llm.generate(PROMPTS, params), free, stops, strict=True):
        (got,) = output.outputs
        count = tokens_until(llm, whole.token_ids, stop)
        assert got.token_ids == whole.token_ids[:count]
        assert got.text == whole.text[: whole.text.index(stop)] + (stop if include else "")
        assert (got.finish_reason, got.stop_reason) == ("stop", stop)
        crossing += stop not in llm.tokenizer.decode(whole.token_ids[count - 1 : count])
    assert crossing >= 3, "no stop string lay over a token border"


def test_a_stop_string_that_never_comes_changes_nothing(llm: LLM, free: list[Completion]) -> None:
    got = llm.generate(PROMPTS, replace(FREE, stop=("never in it",)))
    assert [output.outputs[0] for output in got] == free


def test_stop_ids_end_the_row_with_their_token(llm: LLM, free: list[Completion]) -> None:
    params = [replace(FREE, stop_token_ids=(c.token_ids[7], c.token_ids[3])) for c in free]
    for output, whole, p in zip(llm.generate(PROMPTS, params), free, params, strict=True):
        (got,) = output.outputs
        first = next(i for i, t in enumerate(whole.token_ids) if t in p.stop_token_ids)
        assert got.token_ids == whole.token_ids[: first + 1]
        assert (got.finish_reason, got.stop_reason) == ("stop", whole.token_ids[first])


def test_a_stop_id_gives_the_same_text_with_and_without_stop_strings(llm: LLM, free: list[Completion]) -> None:
    """A stop string that is never met must not change what a stop id's own text does to the answer."""
    params = [replace(FREE, stop_token_ids=(c.token_ids[5],)) for c in free]
    plain = llm.generate(PROMPTS, params)
    watched = llm.generate(PROMPTS, [replace(p, stop=("never in it",)) for p in params])
    assert [o.outputs[0] for o in watched] == [o.outputs[0] for o in plain]


def test_end_tokens_end_unless_ignored_and_are_not_shown(llm: LLM) -> None:
    (eos,) = llm.spec.eos_token_ids
    asked = SamplingParams(temperature=1.8, seed=5, max_tokens=120)
    ended = [o.outputs[0] for o in llm.generate(PROMPTS, asked)]
    whole = [o.outputs[0] for o in llm.generate(PROMPTS, replace(asked, ignore_eos=True))]
    seen = 0
    for got, full in zip(ended, whole, strict=True):
        if eos in full.token_ids:
            seen += 1
            assert got.token_ids == full.token_ids[: full.token_ids.index(eos) + 1]
            assert got.finish_reason == "stop" and got.stop_reason is None
            assert got.text == llm.tokenizer.decode(got.token_ids[:-1])
        else:
            assert got.token_ids == full.token_ids and got.finish_reason == "length"
        assert len(full.token_ids) == 120 and full.finish_reason == "length"
    assert seen >= 5


def test_min_tokens_hold_off_every_ending(llm: LLM) -> None:
    (eos,) = llm.spec.eos_token_ids
    asked = SamplingParams(temperature=1.6, seed=5, max_tokens=60, min_tokens=40, stop_token_ids=(30, 31, 32))
    for output in llm.generate(PROMPTS, asked):
        (got,) = output.outputs
        assert len(got.token_ids) >= 40
        assert not set(got.token_ids[:40]) & {eos, 30, 31, 32}, "an id that ends the row was drawn too early"


def test_stop_strings_before_min_tokens_do_not_count(llm: LLM, free: list[Completion]) -> None:
    stops = [c.text[:1] if c.text[:1].isascii() else "zzz" for c in free]
    got = llm.generate(PROMPTS, [replace(FREE, stop=(s,), min_tokens=20) for s in stops])
    assert all(len(o.outputs[0].token_ids) >= 20 for o in got)


@pytest.mark.parametrize("count", [1, 2, 16, 17])
def test_max_tokens(llm: LLM, free: list[Completion], count: int) -> None:
    for output, whole in zip(llm.generate(PROMPTS, replace(FREE, max_tokens=count)), free, strict=True):
        (got,) = output.outputs
        assert got.token_ids == whole.token_ids[:count] and got.finish_reason == "length"
        assert got.text == llm.tokenizer.decode(got.token_ids)


def test_the_context_ends_an_answer_without_max_tokens(llm: LLM) -> None:
    context = llm.spec.max_positions
    prompts = [[7] * (context - 1), [7] * (context - 5), [7] * context]
    got = llm.generate(prompts, SamplingParams(temperature=0.0, ignore_eos=True))
    assert [len(o.outputs[0].token_ids) for o in got[:2]] == [1, 5]
    assert all(o.outputs[0].finish_reason == "length" for o in got[:2])
    assert got[2].error is not None and got[2].error.code == "context_length_exceeded"


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_row_that_bans_every_token_is_an_error(llm: LLM, temperature: float) -> None:
    """Its neighbours, and a row that leaves one token, go on."""
    width = llm.spec.vocab_size
    asked = SamplingParams(temperature=temperature, min_tokens=2, max_tokens=4)
    params = [replace(asked, stop_token_ids=tuple(range(width)[:n])) for n in (width, width - 1, 1)]
    bad, last, good = llm.generate(PROMPTS[:3], params)
    assert bad.error is not None and (bad.error.code, bad.error.param) == ("invalid_value", "min_tokens")
    assert last.outputs[0].token_ids[:2] == (width - 1,) * 2 and len(good.outputs[0].token_ids) >= 2


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_tokens_that_are_left_without_a_finite_logit_are_not_drawn(temperature: float) -> None:
    logits = torch.tensor([[1.0, -torch.inf, -torch.inf], [1.0, 2.0, -torch.inf]])
    none, one = np.zeros(2, np.int64), np.ones(2)
    sampling = Sampling(
        at=np.arange(2),
        temperature=one * temperature,
        top_k=none,
        top_p=one,
        min_p=one * 0,
        streams=none,
        keys=none,
        samples=none,
        positions=none,
        logprobs=none - 1,
        mask=np.zeros(2, np.int64),
        masks=all_but((0,), 3)[None],
    )
    found = sample(logits, np.arange(2), sampling)
    assert found.bad.tolist() == [True, False] and found.token_ids[1] == 1

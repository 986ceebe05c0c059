"""Models whose layers keep a state: tokens of transformers, bits that depend on the row alone, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models.zoo import VOCAB, make_zoo_model, sum_token_by_token
from tests.oracle.hf import Answer, agreement, greedy, prompts_around_borders
from tests.parameters import few_of
from umbel.api import LLM
from umbel.cache.pages import PagePool
from umbel.engine import build
from umbel.errors import UmbelError
from umbel.ir.params import SamplingParams
from umbel.runner.ahead import AheadTorchRunner

N_TOKENS = 12
GREEDY = SamplingParams(temperature=0.0, max_tokens=N_TOKENS)
TIGHT = "shared, chunks of 7, tight"
REGIMES = {
    "alone": {"chunk": 512, "prefix": "none"},
    TIGHT: {"chunk": 7, "kv_tokens": 192, "prefix": "every-fork"},
    "shared, chunks of 64, tight": {"chunk": 64, "kv_tokens": 256, "prefix": "every-fork"},
    "pages of 4": {"chunk": 33, "kv_tokens": 224, "page_size": 4, "prefix": "every-fork"},
}


@pytest.fixture(scope="module", params=few_of(["qwen3.5"], ["lfm2", "granite-hybrid"]))
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    make_zoo_model(path, request.param, seed=5)
    return path


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    return prompts_around_borders(3, 30, VOCAB - 1, 140)


@pytest.fixture(scope="module")
def answers(directory: Path, prompts: list[list[int]]) -> list[Answer]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        sum_token_by_token(monkeypatch)
        return greedy(directory, prompts, N_TOKENS)


def load(directory: Path, **options: object) -> LLM:
    return LLM(str(directory), dtype="float32", device="cpu", threads=1, **options)


@pytest.mark.parametrize("regime", few_of([TIGHT], [name for name in REGIMES if name != TIGHT]))
def test_tokens_are_those_of_transformers(
    directory: Path, prompts: list[list[int]], answers: list[Answer], regime: str
) -> None:
    options = REGIMES[regime]
    llm = load(directory, admission="aggressive", **options)
    for prompt, output, answer in zip(prompts, llm.generate(prompts, GREEDY), answers, strict=True):
        assert output.error is None, output.error
        assert agreement(output.outputs[0].token_ids, answer) != "different", len(prompt)
    assert "kv_tokens" not in options or llm.stats().preemptions > 0


def test_a_row_of_bits_depends_on_the_row_alone(directory: Path, prompts: list[list[int]]) -> None:
    """Log-probabilities to the last bit, whatever runs beside it, in whatever chunks."""
    params = replace(GREEDY, logprobs=2, prompt_logprobs=1)
    found = []
    for options in ({"chunk": 512}, {"chunk": 5, "kv_tokens": 224}, {"chunk": 64, "page_size": 4}):
        outputs = load(directory, **options).generate(prompts[:8], params)
        found.append([(o.prompt_logprobs, o.outputs[0].logprobs) for o in outputs])
    alone = load(directory)
    found.append([(o.prompt_logprobs, o.outputs[0].logprobs) for p in prompts[:8] for o in alone.generate([p], params)])
    assert found[0] == found[1] == found[2] == found[3]
    assert found[0][5][0] is not None


@pytest.mark.parametrize("ahead", [False, True])
def test_forks_and_turns_of_a_session(directory: Path, monkeypatch: pytest.MonkeyPatch, ahead: bool) -> None:
    """What begins where another is, or was, goes on as if it had been computed alone; so on a runner a step ahead."""
    if ahead:
        monkeypatch.setattr(build, "TorchRunner", lambda *parts: AheadTorchRunner(*parts[:3], states=parts[4]))
    llm, prompt = load(directory), list(range(3, 40))

    def alone(tokens: list[int], count: int) -> list[int]:
        params = SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True)
        return list(llm.generate([tokens], params)[0].outputs[0].token_ids)

    long = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)
    answer, wanted = alone(prompt, 20), dict[int, list[int]]()
    with llm.session() as session:
        (first,) = session.add(prompt, long, stream=True)
        for _ in range(7):
            next(session)
        one, other = session.fork(first, 2)
        wanted |= {first: answer, one: answer}
        had = alone(prompt, 20)[: len(session.abort(other).open[0].token_ids)]
        turns = [prompt + answer, [*prompt, *answer[:9], 8, 9], [*prompt[:20], 4], prompt + had]
        wanted |= dict(zip(session.add(turns, long), [alone(turn, 20) for turn in turns], strict=True))
        session.close()
        events = [event for event in session if event.kind == "finished"]
    assert {event.ticket: ids(event.output)[0] for event in events} == {t: tuple(a) for t, a in wanted.items()}
    with llm.session() as session:  # what rests of the prompts that were there before
        tickets = session.add(turns, long)
        session.close()
        found = {event.ticket: ids(event.output)[0] for event in session}
    assert found == {ticket: tuple(alone(turn, 20)) for ticket, turn in zip(tickets, turns, strict=True)}


def test_samples_begin_where_their_prompt_ends(directory: Path) -> None:
    """The first token of a sample reads what its prompt's last token left, and leaves it as it is."""
    params = SamplingParams(temperature=0.9, n=3, seed=7, max_tokens=9, ignore_eos=True, logprobs=0)
    wide, narrow = (load(directory, **options).generate([[*range(3, 40)]], params)[0] for options in ({}, {"chunk": 3}))
    assert len(set(ids(wide))) == 3
    assert [c.logprobs for c in wide.outputs] == [c.logprobs for c in narrow.outputs]


@pytest.mark.slow
def test_kernels_of_gpus_give_the_same_answers(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Triton's interpreter, with what has no kernel in plain torch."""
    rows = [[5, 6, 7, 8, 9, 10, 30 + i % 4, *range(40, 40 + 3 * (i % 4))] for i in range(5)]
    params = SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True)
    wanted = [ids(output) for output in load(directory, chunk=7).generate(rows, params)]
    pytest.importorskip("triton", reason="Triton is not installed here")
    from tests.engine.test_gpu_path import on_gpu_kernels  # here, as it asks for Triton, too

    made = on_gpu_kernels(monkeypatch)
    assert [ids(output) for output in load(directory, chunk=7).generate(rows, params)] == wanted and made


def ids(output) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in output.outputs]


def test_int8_keys_beside_states(directory: Path) -> None:
    """Only keys and values are rounded: the first token, which reads few of them, stays."""
    llm = load(directory, kv_cache_dtype="int8", allow_lossy=True)
    plain = load(directory)
    assert ids(llm.generate([[5]], GREEDY)[0])[0][0] == ids(plain.generate([[5]], GREEDY)[0])[0][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speculate": "lookup"}, "layers keep a state"),
        ({"tensor_parallel_size": 2}, "recurrence are not cut"),
        ({"linear": "int4", "allow_lossy": True, "attention_backend": "flashinfer"}, "flashinfer"),
    ],
)
def test_what_does_not_go_with_states_is_refused(directory: Path, options: dict, message: str) -> None:
    with pytest.raises(UmbelError, match=message):
        load(directory, **options).generate([[5, 6]], GREEDY)


def test_a_plan_says_what_states_take(directory: Path) -> None:
    plan = load(directory).plan([[5] * 40])
    assert plan.has_states and plan.speculate == "off"
    assert any("keep a state" in refusal.reason for refusal in plan.refusals)


def test_a_state_goes_back_to_the_end_of_a_page() -> None:
    held, lengths = np.array([20, 20, 20, 5]), np.array([20, 19, 16, 30])
    assert PagePool(4, 8).still_held(held, lengths).tolist() == [20, 19, 16, 5]
    assert PagePool(4, 8, has_states=True).still_held(held, lengths).tolist() == [20, 16, 16, 5]

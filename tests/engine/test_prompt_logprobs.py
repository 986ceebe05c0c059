"""Log-probabilities of prompts: those of a plain forward of each row alone, however rows share, are cut and wait."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from tests.engine.test_ahead import Ahead
from tests.models.dense import dense_logits
from tests.sched.drive import _mark
from umbel.api import LLM
from umbel.engine.intake import RequestOutput
from umbel.errors import InvalidRequest
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.runner.fake import FakeRunner, fake_logprob

SCORED = SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True, prompt_logprobs=2)
SHARED = [3 + i % 7 for i in range(37)]
PROMPTS = [
    [9],
    [*SHARED, 50],
    [*SHARED, 51, 52, 53],
    SHARED,
    [*SHARED[:16], 60, 61],
    [*SHARED[:16], 60, 62, *range(70, 100)],
    [*SHARED, 51, 52, 54, 55],
    [80, 81, 82],
]


def check(llm: LLM, outputs: list[RequestOutput], first: int = 1, k: int = 2) -> None:
    """Every entry is what a plain forward of the prompt gives."""
    for output in outputs:
        ids, found = output.prompt_token_ids, output.prompt_logprobs
        assert output.error is None and found is not None and len(found) == len(ids)
        wanted = torch.log_softmax(dense_logits(llm.engine.model.decoder, ids), -1)
        for place, entry in enumerate(found):
            if place < first:
                assert entry is None
                continue
            assert entry is not None and entry.token_id == ids[place] and len(entry.top) == k
            row = wanted[place - 1]
            assert entry.logprob == pytest.approx(float(row[ids[place]]), abs=1e-4)
            assert [value for _, value in entry.top] == pytest.approx(row.topk(k).values.tolist(), abs=1e-4)
            assert all(value == pytest.approx(float(row[i]), abs=1e-4) for i, value in entry.top)


def plain(outputs: list[RequestOutput]) -> list[object]:
    return [(o.outputs, o.prompt_logprobs) for o in outputs]


@pytest.mark.parametrize("chunk", [5, 64])
@pytest.mark.parametrize("prefix", ["none", "forest", "every-fork"])
def test_scores_are_those_of_a_plain_forward(llm: LLM, chunk: int, prefix: str) -> None:
    with LLM(str(llm.config.model), dtype="float32", device="cpu", chunk=chunk, prefix=prefix, page_size=4) as tested:
        outputs = tested.generate(PROMPTS, SCORED)
        check(llm, outputs)
        plans = tested.plan(PROMPTS, SCORED).estimates
        assert tested.stats().computed_prompt_tokens == plans.computed_prompt_tokens


def test_they_do_not_depend_on_steps_pages_and_neighbours(llm: LLM) -> None:
    """To the last bit, where rows are alone, wait for pages, are preempted, and share with rows that want none."""
    alone = [plain(llm.generate([prompt], SCORED))[0] for prompt in PROMPTS]
    assert plain(llm.generate(PROMPTS, SCORED)) == alone
    asked = [replace(SCORED, prompt_logprobs=None if i % 3 == 1 else 2) for i in range(len(PROMPTS))]
    wanted = [(outputs, None if i % 3 == 1 else scores) for i, (outputs, scores) in enumerate(alone)]
    mixed = [(PROMPTS[i], asked[i], wanted[i]) for i in (*range(8), 2, 3, 6)]
    for pool, chunk in ((84, 7), (120, 64)):
        with LLM(
            str(llm.config.model), dtype="float32", device="cpu", page_size=4, kv_tokens=pool, chunk=chunk
        ) as tight:
            got = tight.generate([prompt for prompt, _, _ in mixed], [params for _, params, _ in mixed])
            assert plain(got) == [want for _, _, want in mixed]


def test_rows_share_what_is_said_of_tokens_that_they_share(llm: LLM) -> None:
    """A thousand rows over a long prompt are not a thousand times its scores."""
    first, second = (o.prompt_logprobs for o in llm.generate([PROMPTS[2], PROMPTS[6]], SCORED))
    assert first is not None and second is not None
    assert [one is other for one, other in zip(first, second, strict=False)] == [True] * 39 + [False]


def test_answers_are_those_of_rows_that_want_no_scores(llm: LLM) -> None:
    params = SamplingParams(temperature=0.9, seed=5, n=2, max_tokens=4, logprobs=1)
    without = llm.generate(PROMPTS, params)
    with_scores = llm.generate(PROMPTS, replace(params, prompt_logprobs=0))
    assert [o.outputs for o in with_scores] == [o.outputs for o in without]
    check(llm, with_scores, k=0)


def test_from_a_place_on(llm: LLM) -> None:
    """Rows that share all their tokens and want different parts of their scores, up to none."""
    whole = llm.generate(PROMPTS, SCORED)
    starts = [0, 1, 30, 37, 38, 39, 40, 1_000]
    asked = [(i, replace(SCORED, logprob_start_len=start)) for i in (1, 2, 3) for start in starts]
    parts = llm.generate([PROMPTS[i] for i, _ in asked], [params for _, params in asked])
    for (i, params), part in zip(asked, parts, strict=True):
        first, full = max(params.logprob_start_len, 1), whole[i].prompt_logprobs
        assert full is not None and part.outputs == whole[i].outputs
        assert part.prompt_logprobs == tuple(None if at < first else entry for at, entry in enumerate(full))


def test_no_tokens_may_be_asked_for(llm: LLM) -> None:
    context = llm.spec.max_positions
    prompts = [*PROMPTS, [5 + i % 40 for i in range(context)]]
    wanted = [o.prompt_logprobs for o in llm.generate(PROMPTS, SCORED)]
    before = llm.stats().output_tokens
    got = llm.generate(prompts, replace(SCORED, max_tokens=0, logprobs=1))
    assert [o.prompt_logprobs for o in got][:-1] == wanted
    assert llm.stats().output_tokens == before
    for output in got:
        (completion,) = output.outputs
        assert (completion.token_ids, completion.text, completion.finish_reason) == ((), "", "length")
        assert completion.logprobs == () and len(output.prompt_logprobs or ()) == len(output.prompt_token_ids)
    (over,) = llm.generate([[5] * (context + 1)], replace(SCORED, max_tokens=0))
    assert over.error is not None and over.error.code == "context_length_exceeded"


@pytest.mark.parametrize("bad", [-1, 21, True, "1"])
def test_numbers_out_of_range_are_refused(bad: object) -> None:
    with pytest.raises(InvalidRequest, match="prompt_logprobs"):
        SamplingParams(prompt_logprobs=bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="max_tokens"):
        SamplingParams(max_tokens=0)


def test_rows_that_come_later_are_scored_whole(llm: LLM) -> None:
    """What a session has of their prompts is without scores; forks have those of the row that they come from."""
    wanted = {tuple(o.prompt_token_ids): o for o in llm.generate(PROMPTS, SCORED)}
    with llm.session() as session:
        session.add(PROMPTS, replace(SCORED, prompt_logprobs=None))
        finished = [next(session) for _ in range(4)]
        session.add(PROMPTS, SCORED)
        (forked,) = session.add([PROMPTS[2]], replace(SCORED, max_tokens=12))
        finished += [next(session)]
        children = session.fork(forked, 2)
        session.close()
        finished += list(session)
    seen = 0
    for event in finished:
        assert event.output is not None
        want = wanted[tuple(event.output.prompt_token_ids)]
        assert event.output.prompt_logprobs in (want.prompt_logprobs, None)
        seen += event.output.prompt_logprobs is not None
    assert seen == len(PROMPTS) + 1 + len(children)


def test_rows_that_leave_take_nothing_along(llm: LLM) -> None:
    """Cancelled while their prompts are computed, or taken out and in again."""
    wanted = {tuple(o.prompt_token_ids): o for o in llm.generate(PROMPTS, SCORED)}
    with (
        LLM(str(llm.config.model), dtype="float32", device="cpu", chunk=6, page_size=4) as tested,
        tested.session() as session,
    ):
        tickets = session.add(PROMPTS, SCORED)
        assert next(session).output is not None
        session.cancel(tickets[1])
        taken = session.abort(tickets[6])
        session.add([[*SHARED, 90, 91]], replace(SCORED, prompt_logprobs=None))
        session.resume(taken)
        session.close()
        for event in session:
            assert event.output is not None
            want = wanted.get(tuple(event.output.prompt_token_ids))
            assert want is None or event.output.prompt_logprobs == want.prompt_logprobs


def test_logits_that_are_no_numbers_are_an_error(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = llm.engine.model.decoder
    logits = type(decoder).logits

    def broken(self: object, hidden: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        found = logits(decoder, hidden, out)
        return found if out is not None else found * float("nan")  # those of scores alone

    monkeypatch.setattr(type(decoder), "logits", broken)
    bad, fine = llm.generate([PROMPTS[1], PROMPTS[7]], [SCORED, replace(SCORED, prompt_logprobs=None)])
    assert bad.error is not None and bad.error.code == "non_finite_logits"
    assert fine.error is None


def test_rows_whose_tokens_are_proposed_have_the_same_scores(llm: LLM) -> None:
    params = replace(SCORED, max_tokens=30)
    wanted = llm.generate(PROMPTS, params)
    with LLM(str(llm.config.model), dtype="float32", device="cpu", chunk=64, speculate="ngram") as tested:
        assert plain(tested.generate(PROMPTS, params)) == plain(wanted)
        assert tested.stats().drafted_tokens


@pytest.mark.parametrize("ahead", [False, True])
def test_random_rows_are_scored_as_what_they_hold(llm: LLM, seed: int, ahead: bool) -> None:
    """On a runner whose scores are a hash of all that a token could see, in pools that are too small for all rows."""
    draw = random.Random(seed)
    for _ in range(12):
        page, chunk = draw.choice([1, 2, 3, 8]), draw.choice([1, 3, 8, 40])
        prompts = _random_prompts(draw)
        params = [_random_params(draw) for _ in prompts]
        need = sum(-(-len(p) // page) + 1 for p in prompts)
        least = max(len(p) // page + 8 for p in prompts)  # each node of a path has pages of its own
        pages = draw.randint(least, max(need // 2, least))
        fake = FakeRunner(pages, page, llm.spec.vocab_size)
        shape = {"page_size": page, "kv_tokens": pages * page, "chunk": chunk, "prefix": "every-fork"}
        with LLM(str(llm.config.model), runner=Ahead(fake) if ahead else fake, **shape) as tested:
            for output, prompt, asked in zip(tested.generate(prompts, params), prompts, params, strict=True):
                assert output.error is None
                assert output.prompt_logprobs == expected(prompt, asked, llm.spec.vocab_size)


def _random_prompts(draw: random.Random) -> list[list[int]]:
    """Prompts that begin like others."""
    prompts = [[draw.randint(3, 5) for _ in range(draw.randint(1, 25))] for _ in range(4)]
    for _ in range(draw.randint(2, 14)):
        other = draw.choice(prompts)
        prompts.append(other[: draw.randint(1, len(other))] + [draw.randint(3, 5) for _ in range(draw.randint(0, 5))])
    return prompts


def _random_params(draw: random.Random) -> SamplingParams:
    k, start = draw.choice([None, 0, 1, 3]), draw.choice([0, 0, 2, 9, 30])
    return SamplingParams(temperature=0.0, max_tokens=draw.randint(1, 5), prompt_logprobs=k, logprob_start_len=start)


def expected(prompt: list[int], params: SamplingParams, vocab: int) -> tuple[TokenLogprobs | None, ...] | None:
    """What FakeRunner gives for a prompt that is computed as it should be."""
    if params.prompt_logprobs is None:
        return None
    found: list[TokenLogprobs | None] = []
    for place, token in enumerate(prompt):
        context = sum(_mark(at, prompt[at]) for at in range(place))
        ids = [(token + i) % vocab for i in range(params.prompt_logprobs + 1)]
        values = [fake_logprob(context, i) for i in ids]
        entry = TokenLogprobs(token, values[0], tuple(zip(ids[1:], values[1:], strict=True)))
        found.append(entry if place >= max(params.logprob_start_len, 1) else None)
    return tuple(found)

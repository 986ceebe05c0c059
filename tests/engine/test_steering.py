"""Forks, scripts, and rows taken out and in again, on a real model: each answer is that of one plain request."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from tests.engine.test_session import finished
from umbel.api import LLM
from umbel.engine.session import Session
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.ir.request import Completion
from umbel.ir.resumable import Resumable
from umbel.runner.ahead import AheadTorchRunner

PROMPT = [5, 30, 41, 20, 21]


@pytest.fixture(params=["plain", "ahead"], autouse=True)
def runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test with the runner of this machine, and with one that works a step ahead."""
    if request.param == "ahead":
        monkeypatch.setattr("umbel.engine.build.TorchRunner", lambda *parts: AheadTorchRunner(*parts[:3]))


def plain(llm: LLM, prompt: list[int], has: tuple[int, ...], sample: int, seed: int, out: int) -> tuple[int, ...]:
    """What a sample says that has some tokens: those, and the answer to one request with them in its prompt."""
    params = SamplingParams(temperature=0.9, seed=seed, n=sample + 1, max_tokens=out - len(has), ignore_eos=True)
    (output,) = llm.generate([[*prompt, *has]], params)
    return has + output.outputs[sample].token_ids


def sampled(seed: int, out: int = 12, **more: object) -> SamplingParams:
    return SamplingParams(temperature=0.9, seed=seed, max_tokens=out, ignore_eos=True, **more)  # type: ignore[arg-type]


def tokens_so_far(session: Session, ticket: int) -> tuple[int, ...]:
    """What a ticket's first completion has, between two steps."""
    with session._steer(ticket) as (loop, row, _):
        return loop.tokens_of(row, loop.first_sample(row))


def test_forks_share_what_there_is_and_draw_on_their_own(llm: LLM) -> None:
    """Forked while it waits, early, late, and forked again from a fork; all beside other rows."""
    rng, wanted = random.Random(3), dict[int, tuple[int, ...]]()
    with llm.session() as session:
        session.add([[7, 8, i] for i in range(4)], sampled(50, 20), stream=True)
        (root,) = session.add([PROMPT], sampled(9))
        wanted[root] = plain(llm, PROMPT, (), 0, 9, 12)
        numbers, lineage = 1, [root]
        for wait in (0, 5, 3, 4):
            for _ in range(wait):
                next(session)
            parent = rng.choice(lineage)
            has = tokens_so_far(session, parent)
            for child in session.fork(parent, 2):
                wanted[child] = plain(llm, PROMPT, has, numbers, 9, 12)
                numbers += 1
                lineage.append(child)
        session.close()
        found = finished(session)
    assert {ticket: found[ticket][0].token_ids for ticket in wanted} == wanted
    assert len(set(wanted.values())) > len(wanted) / 2


def test_what_was_given_is_not_learned_as_an_answer_s_length(llm: LLM) -> None:
    with llm.session() as session:
        (ticket,) = session.add([PROMPT], replace(sampled(4, 5), ignore_eos=False), stream=True)
        next(session)
        session.append(ticket, [7, 8, 9])
        session.close()
        assert len(finished(session)[ticket][0].token_ids) == 5 + 3
        assert session._loop is not None
        learned = session._loop.scheduler.lengths.bank()[""]
    assert (learned.lengths.tolist(), learned.stopped.tolist()) == ([5], [1.0])


def test_a_fork_computes_nothing_again_and_copies_no_prompt(llm: LLM) -> None:
    long = list(range(5, 95))
    with LLM(str(llm.engine.model.directory), dtype="float32", device="cpu", threads=1, chunk=64) as fresh:
        with fresh.session() as session:
            (root,) = session.add([long], sampled(1, 30), stream=True)
            for _ in range(12):
                next(session)
            children = session.fork(root, 8)
            with session._steer(root) as (loop, row, _):
                requests, rows = loop.scheduler.requests, [session._row_of[child] for child in children]
                assert all(np.shares_memory(requests.prompt(child), requests.prompt(row)) for child in rows)
                assert all(requests.prompt(child).tolist() == long for child in rows)
            session.close()
            list(session)
        assert fresh.stats().recomputed_tokens == 0 and fresh.stats().computed_prompt_tokens == len(long)


def test_appended_tokens_are_part_of_the_answer(llm: LLM) -> None:
    script = (33, 34, 35)
    with llm.session() as session:
        (now, waits) = session.add([PROMPT, [9, 9]], sampled(4, 10), stream=True)
        session.append(waits, script)
        for _ in range(9):
            next(session)
        has = tokens_so_far(session, now)
        session.append(now, script)
        session.close()
        events = list(session)
    found = finished(iter(events))
    wanted = plain(llm, PROMPT, has + script, 0, 4, 13)
    assert found[now][0].token_ids == wanted and found[waits][0].token_ids == plain(llm, [9, 9], script, 0, 4, 13)
    texts = "".join(event.text for event in events if event.ticket == now)
    assert texts and found[now][0].text.endswith(texts)


def test_what_is_taken_out_goes_on_where_it_was(llm: LLM) -> None:
    """Before it started, under way with some completions done, in the same session and in another one."""
    params = [sampled(2, 14, n=3, logprobs=1), sampled(3, 9, stop=("e",)), SamplingParams(max_tokens=8)]
    prompts = [PROMPT, [5, 30], [5, 30, 41]]
    wanted = [llm.generate([p], q, keys=[i])[0].outputs for i, (p, q) in enumerate(zip(prompts, params, strict=True))]
    records: list[Resumable] = []
    found: dict[int, tuple[Completion, ...]] = {}
    with llm.session() as session:
        first, second, third = session.add(prompts, params, keys=[0, 1, 2])
        records.append(session.abort(third))
        session.add([[1, 2]], sampled(1, 4), stream=True)
        next(session)
        records.append(session.abort(first))
        again = session.resume(records.pop())
        with pytest.raises(UsageError, match=f"ticket {first} is cancelled already"):
            session.abort(first)
        session.close()
        found = finished(session)
    assert (found[again], found[second]) == (wanted[0], wanted[1]) and third not in found
    with llm.session() as session:
        last = session.resume(records[0], stream=True)
        session.close()
        found = finished(session)
    assert found[last] == wanted[2]


def test_bad_input_is_named_and_changes_nothing(llm: LLM) -> None:
    wanted = llm.generate([PROMPT, [7, 8]], [sampled(1), sampled(2, 3)])
    with llm.session() as session:
        one, two = session.add([PROMPT, [7, 8]], [sampled(1), sampled(2, 3)])
        found = {}
        for event in session:
            if event.ticket == two:
                assert event.output is not None
                found[two] = event.output.outputs
                break
        width, context = llm.spec.vocab_size, llm.spec.max_positions
        for steer in (lambda: session.fork(two, 1), lambda: session.append(two, [5]), lambda: session.abort(two)):
            with pytest.raises(UsageError, match=f"ticket {two} has finished"):
                steer()
        for ticket in (7, -1, "x"):
            with pytest.raises(UsageError, match=f"ticket {ticket!r}: this session has given out 2"):
                session.fork(ticket, 1)  # type: ignore[arg-type]
        for n in (0, -1, True, 1.5):
            with pytest.raises(UsageError, match=f"n={n!r}"):
                session.fork(one, n)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=f"ticket {one}: row .* has no sample 4"):
            session.fork(one, 1, sample=4)
        with pytest.raises(UsageError, match=f"{context} tokens behind .* context of {context}: append fewer"):
            session.append(one, [5] * context)
        for ids, named in (([], "no token ids"), ([width], str(width)), ([-3], "-3")):
            with pytest.raises(UsageError, match=named):
                session.append(one, ids)
        session.close()
        found |= finished(session)
    assert [found[one], found[two]] == [output.outputs for output in wanted]
    with pytest.raises(UsageError, match="not open"):
        session.append(one, [5])


def test_a_quorum_stops_the_rest(llm: LLM) -> None:
    """The first two of five to finish come out, as they would have; nothing comes of the others, and none is lost."""
    params = [sampled(i, 4 + 5 * i) for i in range(5)]
    wanted = [output.outputs for output in llm.generate([PROMPT] * 5, params)]
    for late in (False, True):
        with llm.session() as session:
            tickets = session.add([PROMPT] * 5, params)
            (other,) = session.add([[7, 8]], sampled(9, 30))
            if not late:
                session.quorum(tickets, 2)
            events = [next(session)]
            if late:
                session.quorum(tickets, 2)
            session.close()
            found = finished(iter([*events, *session]))
            with pytest.raises(UsageError, match="ticket 4 is cancelled already"):
                session.cancel(4)
        assert found.keys() == {0, 1, other} and [found[0], found[1]] == wanted[:2]


def test_a_quorum_of_a_wrong_size_is_named(llm: LLM) -> None:
    with llm.session() as session:
        tickets = session.add([PROMPT] * 2, sampled(1))
        for count in (0, 3, True, "1"):
            with pytest.raises(UsageError, match=f"quorum: {count!r} of 2"):
                session.quorum(tickets, count)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="ticket 9"):
            session.quorum([0, 9], 1)


def test_what_rows_have_cost_is_counted(llm: LLM) -> None:
    """Tokens drawn, and the context that each of them was drawn behind: by hand for rows of known lengths."""
    with llm.session() as session:
        one, two = session.add([PROMPT, [7, 8]], [sampled(1, 3), sampled(2, 5)])
        session.close()
        list(session)
        both, first, second = (session.spent(tickets) for tickets in ([one, two], [one], [two]))
    assert (first.prompt_tokens, second.prompt_tokens, both.prompt_tokens) == (5, 2, 7)
    assert first.output_tokens == 3 and first.kv_token_steps == 5 + 6 + 7
    assert second.output_tokens == 5 and second.kv_token_steps == 2 + 3 + 4 + 5 + 6
    assert both.output_tokens == 8 and both.kv_token_steps == first.kv_token_steps + second.kv_token_steps
    assert both.seconds == pytest.approx(first.seconds + second.seconds) and first.seconds > 0

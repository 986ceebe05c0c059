"""Sessions: every answer is that of `generate` for the prompt alone, whenever it came and whatever ran beside it."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest

from tests.engine.test_ahead import Ahead
from umbel.api import LLM
from umbel.engine.session import SessionEvent
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.ir.request import Completion
from umbel.runner.ahead import AheadTorchRunner
from umbel.runner.fake import FakeRunner

GREEDY = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)


def finished(events: Iterator[SessionEvent]) -> dict[int, tuple[Completion, ...]]:
    """Answers by ticket; each comes once."""
    found: dict[int, tuple[Completion, ...]] = {}
    for event in events:
        if event.kind == "finished":
            assert event.output is not None and event.ticket not in found
            assert event.output.request_id == str(event.ticket)
            found[event.ticket] = event.output.outputs
    return found


def some_requests(rng: random.Random, count: int) -> list[tuple[list[int], SamplingParams]]:
    """Prompts that share beginnings, with all kinds of parameters."""
    return [
        (
            [5, 30, 40 + rng.randrange(4), *range(20, 20 + rng.randrange(9))],
            SamplingParams(
                temperature=rng.choice((0.0, 0.9)),
                top_k=rng.choice((-1, 3)),
                seed=rng.choice((None, i)),
                n=rng.choice((1, 1, 3)),
                max_tokens=rng.randrange(1, 16),
                min_tokens=rng.choice((0, 1)),
                stop_token_ids=(rng.randrange(100),),
                stop=rng.choice(((), ("e",), ("a", " th"))),
                logprobs=rng.choice((None, 0, 2)),
                include_stop_str_in_output=rng.random() < 0.5,
            ),
        )
        for i in range(count)
    ]


@pytest.fixture(params=["plain", "ahead"])
def runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test with the runner of this machine, and with one that works a step ahead."""
    if request.param == "ahead":
        monkeypatch.setattr("umbel.engine.build.TorchRunner", lambda *parts: AheadTorchRunner(*parts[:3]))


@pytest.mark.usefixtures("runs")
def test_answers_are_those_of_each_prompt_alone(llm: LLM) -> None:
    """Rows come at random, between steps and all at once, some of them streaming; keys decide what each draws."""
    rng = random.Random(5)
    asked = some_requests(rng, 24)
    wanted = {i: llm.generate([prompt], p, keys=[i])[0].outputs for i, (prompt, p) in enumerate(asked)}
    events, left = list[SessionEvent](), list(range(len(asked)))
    before = llm.stats().steps
    with llm.session() as session:
        while left:
            now = [left.pop() for _ in range(rng.randint(1, min(4, len(left))))]
            prompts, params = zip(*(asked[i] for i in now), strict=True)
            stream = bool(left) and left[-1] % 2 == 0
            key_of = dict(zip(session.add(prompts, params, now, stream=stream), now, strict=True))
            wanted |= {("ticket", ticket): wanted[key] for ticket, key in key_of.items()}  # type: ignore[misc]
            for _ in range(rng.randrange(3)):
                events += [next(session)]
        session.close()
        events += session
    found = finished(iter(events))
    assert found == {ticket: wanted["ticket", ticket] for ticket in range(len(asked))}  # type: ignore[index]
    assert llm.stats().steps - before < sum(p.max_tokens or 0 for _, p in asked)


@pytest.mark.usefixtures("runs")
def test_streamed_tokens_and_texts_join_to_the_answer(llm: LLM) -> None:
    asked = some_requests(random.Random(8), 24)
    prompts, params = zip(*asked, strict=True)
    ids: dict[tuple[int, int], tuple[int, ...]] = {}
    texts: dict[tuple[int, int], str] = {}
    with llm.session() as session:
        session.add(prompts, params, stream=True)
        session.close()
        for event in session:
            key = event.ticket, event.sample
            if event.kind == "tokens":
                ids[key] = ids.get(key, ()) + event.token_ids
                texts[key] = texts.get(key, "") + event.text
                continue
            assert event.output is not None
            for c in event.output.outputs:
                assert (ids[event.ticket, c.index], texts[event.ticket, c.index]) == (c.token_ids, c.text)
    assert len(ids) == sum(p.n for p in params)


def test_calls_without_keys_go_on_drawing_as_generate_does(llm: LLM) -> None:
    """A session and `generate` share one sequence of draws."""
    drawn = SamplingParams(max_tokens=5, ignore_eos=True)
    first = llm.intake.first_key
    with llm.session() as session:
        session.add([[5, 6]] * 2, drawn)
        session.add([5, 6], drawn)
        session.close()
        found = finished(session)
    wanted = llm.generate([[5, 6]] * 3, drawn, keys=[first, first + 1, first + 2])
    assert [found[i] for i in range(3)] == [output.outputs for output in wanted]
    assert llm.intake.first_key == first + 3 and len({found[i][0].token_ids for i in range(3)}) > 1


def test_a_prompt_that_cannot_be_run_finishes_with_an_error(llm: LLM) -> None:
    with llm.session() as session:
        assert session.add([[5, 6], [], [-1], [7]], GREEDY) == [0, 1, 2, 3]
        session.close()
        outputs = {event.ticket: event.output for event in session}
    assert [outputs[i].error and outputs[i].error.code for i in range(4)] == [
        None,
        "empty_prompt",
        "invalid_token_id",
        None,
    ]
    assert [outputs[0].outputs, outputs[3].outputs] == [o.outputs for o in llm.generate([[5, 6], [7]], GREEDY)]


def test_bad_input_is_named_and_changes_nothing(llm: LLM) -> None:
    wanted = [output.outputs for output in llm.generate([[5, 6], [7, 8]], GREEDY)]
    closed = llm.session()
    with pytest.raises(UsageError, match="not open yet"):
        closed.add([5], GREEDY)
    with llm.session() as session:
        session.add([[5, 6], [7, 8]], GREEDY, keys=["a", 17])
        with pytest.raises(UsageError, match="no prompts"):
            session.add([], GREEDY)
        with pytest.raises(UsageError, match="2 prompts but 1 keys"):
            session.add([[5], [6]], GREEDY, keys=[1])
        with pytest.raises(UsageError, match="key 'b' is given to prompts 0 and 1"):
            session.add([[5], [6]], GREEDY, keys=["b", "b"])
        with pytest.raises(UsageError, match="key 17 is that of ticket 1"):
            session.add([[5], [6]], GREEDY, keys=[16, 17])
        for unknown in (2, -1, True, "0", None):
            with pytest.raises(UsageError, match=f"ticket {unknown!r}: this session has given out 2"):
                session.cancel(unknown)  # type: ignore[arg-type]
        session.close()
        with pytest.raises(UsageError, match="the session is closed"):
            session.add([5], GREEDY)
        found = finished(session)
    assert [found[0], found[1]] == wanted
    assert list(session) == []


@pytest.mark.usefixtures("runs")
def test_cancel_in_every_state(llm: LLM) -> None:
    """Before the first step, while it runs, when its answer is computed but not taken, and afterwards."""
    asked = [([5, 30, i], SamplingParams(max_tokens=4 + 3 * i, ignore_eos=True, seed=i)) for i in range(6)]
    wanted = {i: llm.generate([prompt], p)[0].outputs for i, (prompt, p) in enumerate(asked)}
    with llm.session() as session:
        tickets = session.add([prompt for prompt, _ in asked], [p for _, p in asked], keys=list("abcdef"), stream=True)
        assert session.cancel(0)
        events = [next(session) for _ in range(8)]
        assert session.cancel(4)
        with pytest.raises(UsageError, match="ticket 4 is cancelled already"):
            session.cancel(4)
        assert not [event for event in events if event.ticket == 0]
        again = session.add([asked[4][0]], asked[4][1], keys=["e"])  # its key is free again
        session.close()
        rest = list(session)
        assert not session.cancel(5), "it has finished"
    assert not [event for event in rest if event.ticket == 4]
    found = finished(iter(events + rest))
    assert found == {i: wanted[i] for i in tickets if i not in (0, 4)} | {again[0]: wanted[4]}
    assert not llm.engine.loops


def test_leaving_abandons_what_is_not_done_and_the_model_goes_on(llm: LLM) -> None:
    with llm.session() as session:
        session.add([[5, 6]] * 3, SamplingParams(max_tokens=200, ignore_eos=True), stream=True)
        next(session)
    assert not llm.engine.loops and list(session) == []
    assert llm.generate([[5, 6]], GREEDY)[0].error is None


def test_threads_add_and_cancel_while_another_iterates(llm: LLM) -> None:
    """Each of some threads adds prompts one by one and cancels every third of its own."""
    draws = SamplingParams(max_tokens=5, ignore_eos=True)
    said: dict[int, tuple[Completion, ...]] = {}
    key_of: dict[int, str] = {}
    dropped: set[int] = set()

    with llm.session() as session:

        def ask(name: int) -> None:
            for i in range(12):
                (ticket,) = session.add([[5, name, i]], draws, keys=[f"{name}-{i}"])
                key_of[ticket] = f"{name}-{i}"
                if i % 3 == 2 and session.cancel(ticket):
                    dropped.add(ticket)

        def close_when_all_have_asked() -> None:
            for thread in threads:
                thread.join()
            session.close()

        threads = [threading.Thread(target=ask, args=(name,)) for name in range(4)]
        last = threading.Thread(target=close_when_all_have_asked)
        for thread in (*threads, last):
            thread.start()
        said = finished(session)
        last.join()
    assert said.keys() == key_of.keys() - dropped and len(key_of) == 48
    prompts = [[5, *map(int, key_of[ticket].split("-"))] for ticket in said]
    wanted = llm.generate(prompts, draws, keys=[key_of[ticket] for ticket in said])
    assert list(said.values()) == [output.outputs for output in wanted]


def test_iterating_sleeps_while_there_is_nothing_to_do(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that has nothing to do waits until it is woken, without looking again and again."""
    waits, asleep = list[object](), threading.Event()
    wait = threading.Condition.wait

    def counted(self: threading.Condition, timeout: float | None = None) -> bool:
        if threading.current_thread() is thread:
            waits.append(timeout)
            asleep.set()
        return wait(self, timeout)

    came: list[SessionEvent] = []
    with llm.session() as session:
        thread = threading.Thread(target=lambda: came.extend(session))
        monkeypatch.setattr(threading.Condition, "wait", counted)
        thread.start()
        assert asleep.wait(60)
        session.add([5], SamplingParams(max_tokens=1))
        session.close()
        thread.join()
    assert len(came) == 1 and waits in ([None], [None, None])


@pytest.mark.parametrize("ahead", [False, True])
def test_a_thousand_arrivals_on_a_given_runner_equal_one_batch(ahead: bool) -> None:
    """In random order and rhythm, on a runner whose tokens tell what its pages held; one forward a step for all."""
    rng = random.Random(1)
    count, vocab = 1_000, 300
    prompts = [[*(rng.randrange(9) for _ in range(2)), *range(rng.randrange(6))] for _ in range(count)]
    params = [SamplingParams(temperature=0.0, max_tokens=rng.randrange(1, 20)) for _ in range(count)]
    with LLM("demo", runner=FakeRunner(4_000, 16, vocab)) as llm:
        wanted = [output.outputs for output in llm.generate(prompts, params)]
    fake = FakeRunner(4_000, 16, vocab)
    with LLM("demo", runner=Ahead(fake) if ahead else fake, kv_tokens=64_000) as llm, llm.session() as session:
        order = rng.sample(range(count), count)
        row_of: dict[int, int] = {}
        found: dict[int, tuple[Completion, ...]] = {}
        while order:
            now = [order.pop() for _ in range(min(len(order), rng.randrange(1, 12)))]
            tickets = session.add([prompts[i] for i in now], [params[i] for i in now], now)
            row_of |= zip(tickets, now, strict=True)
            found |= finished(next(session) for _ in range(rng.randrange(min(len(row_of) - len(found), 8))))
        session.close()
        found |= finished(session)
        steps = llm.stats().steps
    assert [found[ticket] for ticket in sorted(found, key=row_of.__getitem__)] == wanted
    assert steps < sum(p.max_tokens or 0 for p in params) / 8


@pytest.mark.usefixtures("runs")
def test_what_was_said_is_not_computed_again(llm: LLM) -> None:
    """Turn after turn only what is new of a prompt goes through the model, and the answers are those of each alone."""
    params = SamplingParams(temperature=0.8, seed=3, max_tokens=20, ignore_eos=True)
    with LLM(str(llm.engine.model.directory), dtype="float32", device="cpu", threads=1, chunk=64) as fresh:
        prompt, total = list(range(5, 45)), 0
        with fresh.session() as session:
            for turn in range(4):
                (ticket,) = session.add([prompt], params)
                event = next(session)
                assert event.ticket == ticket and event.output is not None
                assert event.output.outputs == llm.generate([prompt], params)[0].outputs
                total += len(prompt)
                prompt = [*prompt, *event.output.outputs[0].token_ids, 9, turn + 5]
        computed = fresh.stats().computed_prompt_tokens + fresh.stats().recomputed_tokens
    new = 40 + 3 * 3  # the first prompt; then the last token of an answer, and the two behind it
    assert computed <= new + 4 * 16, "what does not fill a page may be computed again"
    assert computed < total / 2


def test_kept_beginnings_make_room_for_rows(llm: LLM) -> None:
    """In a pool that a few rows fill, what was kept goes when it is in the way, and answers stay as they were."""
    rng = random.Random(2)
    prompts = [[5, rng.randrange(3), rng.randrange(3), *range(20, 20 + rng.randrange(12))] for _ in range(40)]
    params = [SamplingParams(temperature=0.9, seed=i, max_tokens=rng.randrange(1, 20)) for i in range(40)]
    wanted = [output.outputs for output in llm.generate(prompts, params)]
    directory = str(llm.engine.model.directory)
    small = LLM(directory, dtype="float32", device="cpu", threads=1, chunk=24, kv_tokens=160)
    with small.session() as session:
        found: dict[int, tuple[Completion, ...]] = {}
        for i in range(0, 40, 4):
            session.add(prompts[i : i + 4], params[i : i + 4])
            found |= finished(next(session) for _ in range(2))
        session.close()
        found |= finished(session)
    assert [found[ticket] for ticket in range(40)] == wanted


@pytest.mark.usefixtures("runs")
def test_rows_that_are_paused_for_urgent_ones_give_the_same_answers(llm: LLM) -> None:
    """Batch rows fill the memory; urgent rows come, which start at once and finish first."""
    asked = some_requests(random.Random(3), 14)
    with LLM(llm.config.model, dtype="float32", device="cpu", threads=1, kv_tokens=96, page_size=4, chunk=32) as small:
        wanted = {i: small.generate([prompt], p, keys=[i])[0].outputs for i, (prompt, p) in enumerate(asked)}
        urgent = [
            ([9, 8, i, *range(30, 50)], SamplingParams(temperature=0.0, max_tokens=5, ignore_eos=True))
            for i in range(3)
        ]
        wanted |= {20 + i: small.generate([prompt], p)[0].outputs for i, (prompt, p) in enumerate(urgent)}
        with small.session() as session:
            of = dict(zip(session.add(*zip(*asked, strict=True), keys=range(14), priority=5), range(14), strict=True))
            events = [next(session)]
            now = session.add(*zip(*urgent, strict=True), priority=-1)
            of |= zip(now, range(20, 23), strict=True)
            session.close()
            events += session
        order = [event.ticket for event in events if event.kind == "finished"]
        assert finished(iter(events)) == {ticket: wanted[key] for ticket, key in of.items()}
        assert small.stats().preemptions > 0 and set(order[1:8]) >= set(now)


@pytest.mark.parametrize("priority", [0.5, True, "1", None, 2**31])
def test_priorities_are_whole_numbers(llm: LLM, priority: object) -> None:
    with llm.session() as session:
        with pytest.raises(UsageError, match="priority="):
            session.add([5], GREEDY, priority=priority)  # type: ignore[arg-type]
        session.close()
        assert list(session) == []

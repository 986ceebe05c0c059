"""Sessions in which some prompts want vectors: the bits of `embed` and `classify`, whatever runs beside them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pooling_models import PROMPTS, make_classifier
from umbel import LLM, PoolingParams, SamplingParams
from umbel.engine.session import SessionEvent
from umbel.errors import UsageError
from umbel.runner.ahead import AheadTorchRunner

KINDS = ("LAST", "MEAN")
MEAN = PoolingParams(pooling_type="MEAN")
GREEDY = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)


def vectors(events: Iterator[SessionEvent]) -> dict[int, tuple[float, ...] | None]:
    """Vectors by ticket; none comes with an error, or with tokens."""
    found = {}
    for event in events:
        assert event.output is not None and event.output.error is None
        found[event.ticket] = event.output.vector
    return found


def embedded(llm: LLM, kind: str, number: int) -> tuple[float, ...]:
    return tuple(llm.embed([PROMPTS[number]], {"pooling_type": kind})[0].outputs.embedding)


@pytest.mark.parametrize("ahead", [False, True])
def test_vectors_are_those_of_embed(llm: LLM, monkeypatch: pytest.MonkeyPatch, *, ahead: bool) -> None:
    """Prompts come again and again, so that all or part of them is held already, among others that are answered."""
    if ahead:
        monkeypatch.setattr("umbel.engine.build.TorchRunner", lambda *parts: AheadTorchRunner(*parts[:3]))
    wanted = {(kind, i): embedded(llm, kind, i) for kind in KINDS for i in range(len(PROMPTS))}
    rng, asked, found = random.Random(4), dict[int, tuple[str, int]](), dict[int, tuple[float, ...] | None]()
    with llm.session() as session:
        for _ in range(30):
            kind, i = rng.choice((*KINDS, "text")), rng.randrange(len(PROMPTS))
            params = GREEDY if kind == "text" else PoolingParams(pooling_type=kind)
            (ticket,) = session.add([PROMPTS[i]], params)
            asked[ticket] = kind, i
            if len(found) < len(asked) and rng.random() < 0.5:
                found |= vectors(iter([next(session)]))
        session.close()
        found |= vectors(session)
    assert found == {ticket: wanted.get(what) for ticket, what in asked.items()}


def test_a_streaming_prompt_has_one_event(llm: LLM) -> None:
    with llm.session() as session:
        tickets = session.add(PROMPTS[:2], [MEAN, PoolingParams()], stream=True)
        session.close()
        events = list(session)
    assert sorted(event.ticket for event in events) == tickets
    assert {event.kind for event in events} == {"finished"}


def test_classes_and_refusals(tmp_path: Path) -> None:
    path = make_classifier(tmp_path / "model", "qwen3", num_labels=3)
    with LLM(str(path), dtype="float32", device="cpu", threads=1) as llm:
        wanted = [tuple(one.outputs.probs) for one in llm.classify(PROMPTS[:2])]
        with llm.session() as session:
            session.add(PROMPTS[:2], PoolingParams("classify"))
            embed, write = session.add(PROMPTS[:2], [PoolingParams("embed"), GREEDY])
            session.close()
            found = {event.ticket: event.output for event in session}
    assert [found[i].vector for i in range(2)] == wanted  # type: ignore[union-attr]
    errors = [found[ticket].error for ticket in (embed, write)]  # type: ignore[union-attr]
    assert [error and error.code for error in errors] == ["unsupported_parameter"] * 2
    assert all(found[ticket].vector is None for ticket in (embed, write))  # type: ignore[union-attr]


def test_what_is_steered(llm: LLM) -> None:
    """A row that was taken out still wants what it wanted; there is no answer to fork or to write on."""
    with llm.session() as session:
        tickets = session.add(PROMPTS[:3], MEAN)
        session.cancel(tickets[0])
        for steer in (lambda: session.fork(tickets[1], 2), lambda: session.append(tickets[1], [3])):
            with pytest.raises(UsageError, match=r"ticket 1: .*no answer to go on with"):
                steer()
        again = session.resume(session.abort(tickets[2]))
        session.close()
        found = vectors(session)
    assert found == {tickets[1]: embedded(llm, "MEAN", 1), again: embedded(llm, "MEAN", 2)}


def test_a_whole_context_can_be_taken_up_again(llm: LLM) -> None:
    whole = [i % 200 for i in range(llm.spec.max_positions)]
    with llm.session() as session:
        again = session.resume(session.abort(*session.add(whole, MEAN)))
        session.close()
        assert vectors(session)[again] is not None


def test_generate_names_the_way(llm: LLM) -> None:
    with pytest.raises(UsageError, match="embed, classify and encode give vectors"):
        llm.generate(PROMPTS, PoolingParams())

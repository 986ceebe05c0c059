"""Tenants of a session: no KV of one is read for another, and answers are those of each prompt alone."""

from __future__ import annotations

import pytest

from umbel.api import LLM
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams

GREEDY = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
PROMPT = [5, 30, *range(20, 60)]


def computed(llm: LLM, tenants: list[str | None], **targets: float) -> list[int]:
    """Prompt tokens that are computed for the same prompt, asked by one tenant after the other."""
    wanted, found = llm.generate([PROMPT], GREEDY)[0].outputs, []
    with llm.session(**targets) as session:
        for tenant in tenants:
            before = llm.stats().computed_prompt_tokens
            session.add([PROMPT], GREEDY, tenant=tenant)
            output = next(session).output
            assert output is not None and output.outputs == wanted
            found.append(llm.stats().computed_prompt_tokens - before)
        session.close()
    return found


def test_no_tenant_reads_what_another_has_computed(llm: LLM) -> None:
    size = len(PROMPT)
    assert computed(llm, [None, "a", "b", "a", None]) == [size, size, size, 0, 0]


def test_rows_that_come_together_are_apart_too(llm: LLM) -> None:
    """They are planned in one forest, of several trees."""
    before = llm.stats().computed_prompt_tokens
    with llm.session() as session:
        for tenant in ("a", "b", "a", "b", None):
            session.add([PROMPT], GREEDY, tenant=tenant)
        session.close()
        assert len({event.output.outputs for event in session if event.output}) == 1
    assert llm.stats().computed_prompt_tokens - before == 3 * len(PROMPT)


def test_a_row_that_is_taken_up_again_is_its_tenant_s(llm: LLM) -> None:
    wanted = llm.generate([PROMPT], GREEDY)[0].outputs
    with llm.session() as session:
        (ticket,) = session.add([PROMPT], GREEDY, stream=True, tenant="a")
        next(session)
        record = session.abort(ticket)
        before = llm.stats().computed_prompt_tokens
        session.resume(record, tenant="b")
        output = next(event.output for event in session if event.output)
        assert output is not None and output.outputs == wanted
        assert llm.stats().computed_prompt_tokens - before == len(PROMPT)
        session.close()


def test_targets_change_no_answer(llm: LLM) -> None:
    assert computed(llm, ["a", "a"], ttft_target=0.5, tbt_target=1e-6) == [len(PROMPT), 0]


@pytest.mark.parametrize("name", ["ttft_target", "tbt_target"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "1"])
def test_targets_are_seconds(llm: LLM, name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{name}="):
        llm.session(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("tenant", ["", 3, b"a"])
def test_tenants_are_texts(llm: LLM, tenant: object) -> None:
    with llm.session() as session:
        with pytest.raises(UsageError, match="tenant="):
            session.add([PROMPT], GREEDY, tenant=tenant)  # type: ignore[arg-type]
        session.close()
        assert list(session) == []

"""Requests made from /openapi.json, right and wrong: no status of 500 or above, and errors in OpenAI's form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from tests.serve.conftest import listening
from umbel.api import LLM
from umbel.serve.schemas import ERROR

MOST_TOKENS = 3
MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
LIMITS = ("max_tokens", "max_output_tokens", "n")


@pytest.fixture(scope="module")
def url(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with listening(llm, store=tmp_path_factory.mktemp("store")) as found:
        yield found


def short(body: object) -> object:
    """A body whose answer is short, where it is a body at all."""
    if not isinstance(body, dict):
        return body
    return {"max_tokens": MOST_TOKENS} | {
        name: min(value, MOST_TOKENS) if name in LIMITS and isinstance(value, int) else value
        for name, value in body.items()
    }


def asked(url: str, mode: schemathesis.GenerationMode, count: int) -> Iterator[tuple[str, int]]:
    """The statuses that so many requests to each endpoint get."""
    for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        operation = found.ok()
        yield from ((operation.label, status) for status in statuses_of(operation, url, mode, count))


def statuses_of(
    operation: schemathesis.APIOperation, url: str, mode: schemathesis.GenerationMode, count: int
) -> list[int]:
    statuses, checks = list[int](), list(HealthCheck)

    @settings(max_examples=count, deadline=None, phases=[Phase.generate], suppress_health_check=checks)
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        if mode == schemathesis.GenerationMode.POSITIVE:
            case.body = short(case.body)
        response = case.call(base_url=url, timeout=120)
        statuses.append(response.status_code)
        assert response.status_code < 500, (operation.label, case.body, response.text)
        if response.status_code >= 400:
            jsonschema.validate(response.json(), ERROR)

    with suppress(Unsatisfiable):  # what has no parameters cannot be asked wrongly
        ask()
    return statuses


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_no_request_breaks_the_server(url: str, mode: schemathesis.GenerationMode) -> None:
    found = list(asked(url, mode, 4))
    assert {label for label, _ in found} >= {"POST /v1/completions", "POST /v1/responses", "POST /tokenize"}
    if mode == schemathesis.GenerationMode.POSITIVE:
        answered = {label for label, status in found if status == 200}
        assert len(answered) >= 5 and any(label.startswith("POST") for label in answered)


@pytest.mark.nightly
@pytest.mark.parametrize("mode", MODES)
def test_no_request_of_thousands_does(url: str, mode: schemathesis.GenerationMode) -> None:
    assert len(list(asked(url, mode, 150))) >= 2_500


@pytest.mark.parametrize(
    "count", [pytest.param(2, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.nightly)]
)
def test_no_order_of_requests_does(url: str, count: int) -> None:
    """Files are uploaded, looked at, deleted, made batches of, and these cancelled, in any order."""
    calls = list[tuple[str, int]]()

    class Workflow(schemathesis.openapi.from_url(f"{url}/openapi.json").as_state_machine()):  # type: ignore[misc]
        def before_call(self, case: schemathesis.Case) -> None:
            case.body = short(case.body) if case.operation.label.startswith("POST /v1/c") else case.body

        def validate_response(self, response: schemathesis.Response, case: schemathesis.Case, **more: object) -> None:
            calls.append((case.operation.label, response.status_code))
            assert response.status_code < 500, (case.operation.label, case.body, response.text)
            if response.status_code >= 400:
                jsonschema.validate(response.json(), ERROR)

    checks = list(HealthCheck)
    phases = [Phase.generate]
    Workflow.run(
        settings=settings(
            max_examples=count, deadline=None, phases=phases, suppress_health_check=checks, stateful_step_count=20
        )
    )
    assert httpx.get(f"{url}/health").status_code == 200
    assert len(calls) > 2 * count
    if count > 10:
        assert {label for label, status in calls if status == 200} >= {
            "POST /v1/files",
            "POST /v1/batches",
            "GET /v1/batches/{batch_id}",
        }

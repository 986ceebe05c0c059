"""What every request meets: keys, limits, errors in OpenAI's form, and answers that are those of `LLM.generate`."""

from __future__ import annotations

import httpx
import pytest

from tests.serve.conftest import listening
from umbel.api import LLM
from umbel.config import EngineConfig
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.serve.settings import ServeSettings

URL = "/v1/completions"
PROMPTS = [[5, 30, 41], [5, 30, 42, 43], [7]]


def error_of(response: httpx.Response) -> tuple[int, str, str | None]:
    found = response.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return response.status_code, found["code"], found["param"]


def test_it_says_what_it_is(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
    assert client.get("/v1/models/tiny").json()["object"] == "model"
    assert error_of(client.get("/v1/models/other")) == (404, "model_not_found", "model")


def test_answers_are_those_of_generate(client: httpx.Client, llm: LLM) -> None:
    body = {"prompt": PROMPTS, "max_tokens": 6, "temperature": 0, "ignore_eos": True, "n": 2}
    found = client.post(URL, json=body).json()
    expected = llm.generate(PROMPTS, SamplingParams(max_tokens=6, temperature=0, ignore_eos=True, n=2))
    assert [one["text"] for one in found["choices"]] == [c.text for output in expected for c in output.outputs]
    assert [one["index"] for one in found["choices"]] == [0, 1, 2, 3, 4, 5]
    assert found["usage"] == {"prompt_tokens": 8, "completion_tokens": 36, "total_tokens": 44}


BAD = [
    ({"prompt": "a", "model": "other"}, (404, "model_not_found", "model")),
    ({}, (400, "missing_required_parameter", "prompt")),
    ({"prompt": [1, "a"]}, (400, "invalid_type", "prompt")),
    ({"prompt": ["a", 1]}, (400, "invalid_type", "prompt")),
    ({"prompt": [[1], [10**9]]}, (400, "invalid_token_id", "prompt")),
    ({"prompt": "a", "max_tokens": 0}, (400, "invalid_value", "max_tokens")),
    ({"prompt": "a", "temperature": "hot"}, (400, "invalid_type", "temperature")),
    ({"prompt": "a", "best_of": 3}, (400, "unsupported_parameter", "best_of")),
    ({"prompt": [[1]] * 3_000}, (400, "array_above_max_length", "prompt")),
]


@pytest.mark.parametrize(("body", "expected"), BAD)
def test_what_is_wrong_has_a_name(client: httpx.Client, body: object, expected: object) -> None:
    assert error_of(client.post(URL, json=body)) == expected


BODIES = [
    (b"", {}, (400, "invalid_json", None)),
    (b"{", {}, (400, "invalid_json", None)),
    (b"[" * 100_000, {}, (400, "invalid_json", None)),
    (b'"a"', {}, (400, "invalid_json", None)),
    (b"{}", {"content-type": "text/plain"}, (415, "unsupported_media_type", None)),
    (b" " * (16 * 2**20 + 1), {}, (413, "request_too_large", None)),
]


@pytest.mark.parametrize(("data", "headers", "expected"), BODIES, ids=range(len(BODIES)))
def test_bodies_that_are_none(client: httpx.Client, data: bytes, headers: dict[str, str], expected: object) -> None:
    response = client.post(URL, content=data, headers={"content-type": "application/json", **headers})
    assert error_of(response) == expected


def test_a_large_body_without_a_length(client: httpx.Client) -> None:
    def parts() -> object:
        yield from [b" " * 2**20] * 20

    response = client.post(URL, content=parts(), headers={"content-type": "application/json"})  # type: ignore[arg-type]
    assert error_of(response) == (413, "request_too_large", None)


def test_unknown_paths_and_methods(client: httpx.Client) -> None:
    assert error_of(client.get("/v1/nothing"))[:2] == (404, "not_found")
    assert error_of(client.get(URL))[:2] == (405, "method_not_allowed")


def test_other_machines_need_a_key() -> None:
    with pytest.raises(UsageError, match="--api-key"):
        ServeSettings(EngineConfig("demo"), host="0.0.0.0")
    assert ServeSettings(EngineConfig("demo"), host="0.0.0.0", keys=("k",)).port == 8000


def test_keys_share_no_kv(llm: LLM) -> None:
    """A prompt that another key has sent is computed again; that of the same key is not."""
    body = {"prompt": [list(range(10, 90))], "max_tokens": 1, "temperature": 0}

    def computed(client: httpx.Client, key: str) -> int:
        before = llm.engine.stats().computed_prompt_tokens
        assert client.post(URL, json=body, headers={"Authorization": f"Bearer {key}"}).status_code == 200
        return llm.engine.stats().computed_prompt_tokens - before

    with listening(llm, keys=("first", "second")) as url, httpx.Client(base_url=url) as client:
        whole = computed(client, "first")
        assert computed(client, "second") == whole == 80
        assert computed(client, "first") <= 16 and computed(client, "second") <= 16


def test_keys(llm: LLM) -> None:
    with listening(llm, keys=("first", "second")) as url, httpx.Client(base_url=url) as client:
        assert client.get("/health").status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic first"}, {"cookie": "a=first"}):
            assert error_of(client.get("/v1/models", headers=headers))[:2] == (401, "invalid_api_key")
        for key in ("first", "second"):
            assert client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200
        cookie = {"cookie": "umbel_key=first"}
        assert client.get("/v1/models", headers=cookie).status_code == 200
        assert client.post(URL, headers=cookie, json={"prompt": [1]}).status_code == 401

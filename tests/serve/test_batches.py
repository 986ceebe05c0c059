"""Files and batches with OpenAI's own client: made, run, listed, cancelled, expired, repeated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.held import wait_until
from tests.serve.conftest import listening
from umbel.api import LLM
from umbel.batch.call import run

CHAT, TEXT, VECTOR = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES = "/v1/responses"
MOMENTS = ("id", "request_id", "created", "created_at")


def line(number: int, url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": f"row-{number}", "method": "POST", "url": url, "body": {"model": "tiny", **body}}


def texts(count: int, tokens: int = 4) -> list[dict[str, Any]]:
    """Rows of token ids, some of which begin alike, some drawn and some not."""
    prompts = [[1 + i % 3, 7, 11 + i // 16, 50 + i % 16] for i in range(count)]
    return [line(i, TEXT, prompt=ids, max_tokens=tokens, temperature=i % 2) for i, ids in enumerate(prompts)]


def packed(rows: list[Any]) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def client_of(url: str, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=options.pop("key", "none"), max_retries=0, **options)


def made(client: openai.OpenAI, rows: list[Any], endpoint: str = TEXT, window: str = "24h", **more: Any) -> Any:
    file = client.files.create(file=("rows.jsonl", packed(rows)), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window=window, **more)  # type: ignore[arg-type]


def ended(client: openai.OpenAI, batch: Any) -> Any:
    wait_until(lambda: client.batches.retrieve(batch.id).status in ("completed", "failed", "expired", "cancelled"))
    return client.batches.retrieve(batch.id)


def lines(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(text) for text in client.files.content(file_id).text.splitlines()]


def timeless(value: Any) -> Any:
    """An object without ids and times."""
    if isinstance(value, dict):
        return {name: timeless(one) for name, one in value.items() if name not in MOMENTS}
    return [timeless(one) for one in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def server(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with listening(llm, store=tmp_path_factory.mktemp("store")) as url:
        yield url


@pytest.fixture
def client(server: str) -> Iterator[openai.OpenAI]:
    with client_of(server) as found:
        yield found


def test_a_batch_has_the_output_of_a_run_of_its_file(client: openai.OpenAI, llm: LLM, tmp_path: Path) -> None:
    rows = [*texts(30), line(30, TEXT, prompt=[1, 2], max_tokens=-1), line(31, TEXT, prompt=[1, 2], n=2, logprobs=1)]
    batch = ended(client, made(client, rows, metadata={"name": "test"}))
    assert (batch.status, batch.metadata, batch.errors) == ("completed", {"name": "test"}, None)
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (32, 31, 1)
    (tmp_path / "in.jsonl").write_bytes(packed(rows))
    options = {"dtype": "float32", "device": "cpu", "threads": 1, "chunk": 64, "served_model_name": ["tiny"]}
    run(tmp_path / "in.jsonl", tmp_path / "out", model=llm.config.model, errors=tmp_path / "bad", quiet=True, **options)
    for file_id, name in ((batch.output_file_id, "out"), (batch.error_file_id, "bad")):
        expected = [json.loads(text) for text in (tmp_path / name).read_text().splitlines()]
        assert [timeless(one) for one in lines(client, file_id)] == [timeless(one) for one in expected]


def test_chats_vectors_and_responses_are_batches_too(client: openai.OpenAI) -> None:
    said = [{"role": "user", "content": "one two"}]
    chats = [line(i, CHAT, messages=said, max_tokens=3 + i, temperature=0) for i in range(2)]
    vectors = [line(i, VECTOR, input=[[3, 4, 5 + i], [6]]) for i in range(2)]
    responses = [line(i, RESPONSES, input="one two", max_output_tokens=3 + i, temperature=0) for i in range(2)]
    wrong = [line(2, RESPONSES, input="one", background=True), line(3, RESPONSES, input=[{"type": "image"}])]
    files = [made(client, chats, CHAT), made(client, vectors, VECTOR), made(client, [*responses, *wrong], RESPONSES)]
    batches = [ended(client, batch) for batch in files]
    assert [batch.status for batch in batches] == ["completed"] * 3
    of_chats, of_vectors, of_responses = (bodies(client, batch.output_file_id) for batch in batches)
    assert [[len(one["embedding"]) > 0 for one in body["data"]] for body in of_vectors] == [[True, True]] * 2
    texts_of = [[part["text"] for item in body["output"] for part in item["content"]] for body in of_responses]
    assert texts_of == [[body["choices"][0]["message"]["content"]] for body in of_chats]
    for body, chat in zip(of_responses, of_chats, strict=True):
        assert openai.types.responses.Response.model_validate(body).usage.total_tokens == chat["usage"]["total_tokens"]
        assert (body["object"], body["status"], body["temperature"]) == ("response", "incomplete", 0)
    faults = [one["response"] for one in lines(client, batches[2].error_file_id)]
    found = [(one["status_code"], one["body"]["error"]["param"]) for one in faults]
    assert found == [(400, "background"), (400, "input")] and batches[0].error_file_id is None


def test_one_batch_goes_to_all_endpoints(client: openai.OpenAI) -> None:
    """Each line has the answer that it has in a batch of its own endpoint."""
    said = [{"role": "user", "content": "one two"}]
    rows = [
        line(0, RESPONSES, input="one two", max_output_tokens=3, temperature=0),
        line(1, VECTOR, input=[[3, 4, 5], [6]]),
        line(2, CHAT, messages=said, max_tokens=4, temperature=0),
        line(3, TEXT, prompt=[1, 2, 3], max_tokens=4, temperature=0),
        line(4, RESPONSES, input="one", background=True),
    ]
    mixed = ended(client, made(client, rows, "*"))
    assert (mixed.status, mixed.endpoint) == ("completed", "*")
    alone = [ended(client, made(client, [row], row["url"])) for row in rows[:4]]
    expected = [line for batch in alone for line in lines(client, batch.output_file_id)]
    assert [timeless(one) for one in lines(client, mixed.output_file_id)] == [timeless(one) for one in expected]
    (fault,) = lines(client, mixed.error_file_id)
    assert (fault["custom_id"], fault["response"]["body"]["error"]["param"]) == ("row-4", "background")
    wrong = ended(client, made(client, [rows[0], line(1, "/v1/moderations", input="x"), {"prompt": "plain"}], "*"))
    assert wrong.status == "failed" and (wrong.errors.data[0].line, wrong.errors.data[0].code) == (2, "invalid_url")


def test_lines_that_are_no_responses_fail_a_batch_of_them(client: openai.OpenAI) -> None:
    rows = [line(0, RESPONSES, input="one"), b"{broken", line(1, CHAT, messages=[]), line(0, RESPONSES, input="one")]
    batch = ended(client, made(client, rows, RESPONSES))
    found = [(one.line, one.code) for one in batch.errors.data]
    assert found == [(2, "invalid_json_line"), (3, "invalid_url"), (4, "duplicate_custom_id")]


def bodies(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return [one["response"]["body"] for one in lines(client, file_id)]


def test_times_and_usage_of_a_batch(client: openai.OpenAI) -> None:
    batch = ended(client, made(client, texts(5)))
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at < batch.expires_at
    assert (batch.cancelling_at, batch.cancelled_at, batch.expired_at, batch.failed_at) == (None,) * 4
    assert (batch.usage.input_tokens, batch.usage.output_tokens, batch.usage.total_tokens) == (20, 20, 40)
    assert (batch.model, batch.object, batch.endpoint, batch.waits_for) == ("tiny", "batch", TEXT, None)
    output = client.files.retrieve(batch.output_file_id)
    content = client.files.content(output.id).content
    assert (output.purpose, output.bytes, output.status) == ("batch_output", len(content), "processed")


def test_faults_of_lines_fail_a_batch_by_their_numbers(client: openai.OpenAI) -> None:
    good = texts(3)
    rows = [good[0], b"{broken", good[0], {**good[1], "url": CHAT}, {**good[2], "method": "GET"}]
    rows += [line(7, TEXT, prompt=[1]) | {"body": {"model": "other", "prompt": [1]}}, {"method": "POST", "url": TEXT}]
    batch = ended(client, made(client, rows))
    assert batch.status == "failed" and batch.failed_at and batch.output_file_id is None
    assert [(one.line, one.code, one.param) for one in batch.errors.data] == [
        (2, "invalid_json_line", None),
        (3, "duplicate_custom_id", "custom_id"),
        (4, "url_mismatch", "url"),
        (5, "invalid_method", "method"),
        (6, "model_mismatch", "model"),
        (7, "missing_required_parameter", "custom_id"),
    ]
    assert all(one.message for one in batch.errors.data)


@pytest.mark.parametrize(
    "rows, endpoint, code",
    [
        ([b"", b" "], TEXT, "empty_file"),
        ([b"hello"], TEXT, "invalid_request_line"),
        ([{"prompt": "plain"}], TEXT, "invalid_request_line"),
        (texts(1), CHAT, "url_mismatch"),
    ],
)
def test_files_that_are_no_batch_fail_it(client: openai.OpenAI, rows: list[Any], endpoint: str, code: str) -> None:
    batch = ended(client, made(client, rows, endpoint))
    assert (batch.status, [one.code for one in batch.errors.data]) == ("failed", [code])


@pytest.mark.parametrize(
    "change, param",
    [
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "0s"}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"input_file_id": 7}, "input_file_id"),
        ({"extra_body": {"priority": 1}}, "priority"),
        ({"extra_body": {"output_expires_after": {"anchor": "created_at", "seconds": 1}}}, "output_expires_after"),
    ],
)
def test_what_cannot_be_asked_of_a_batch_is_refused_by_name(client: openai.OpenAI, change: Any, param: str) -> None:
    asked: dict[str, Any] = {"input_file_id": "file-x", "endpoint": TEXT, "completion_window": "24h"}
    with pytest.raises(openai.BadRequestError) as found:
        client.batches.create(**asked | change)
    assert found.value.param == param


def test_a_batch_that_is_asked_for_again_is_made_once(client: openai.OpenAI) -> None:
    file = client.files.create(file=("rows.jsonl", packed(texts(2))), purpose="batch")
    asked: Any = {"input_file_id": file.id, "endpoint": TEXT, "completion_window": "24h", "metadata": {"a": "b"}}
    first = client.batches.create(**asked)
    again = {"extra_headers": {"x-stainless-retry-count": "1"}}
    assert client.batches.create(**asked, **again).id == first.id
    others = [client.batches.create(**asked), client.batches.create(**asked | {"metadata": {"a": "c"}}, **again)]
    keyed = [client.batches.create(**asked, extra_headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert len({first.id, *(one.id for one in others), keyed[0].id}) == 4 and keyed[0].id == keyed[1].id
    with pytest.raises(openai.ConflictError):
        client.batches.create(**asked | {"metadata": None}, extra_headers={"Idempotency-Key": "k"})


@pytest.mark.slow
def test_a_lost_answer_makes_no_second_batch_or_file(server: str) -> None:
    lost = list[str]()

    class Losing(openai.DefaultHttpxClient):
        def send(self, request: Any, **options: Any) -> Any:
            response = super().send(request, **options)
            if request.method == "POST" and request.url.path not in lost:
                lost.append(request.url.path)
                return type(response)(500, json={}, request=request, headers={"retry-after-ms": "1"})
            return response

    with openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=2, http_client=Losing()) as client:
        before = [len(client.files.list(purpose="batch").data), len(client.batches.list(limit=100).data)]
        batch = made(client, texts(3), metadata={"lost": "once"})
        assert ended(client, batch).status == "completed" and lost == ["/v1/files", "/v1/batches"]
        after = [len(client.files.list(purpose="batch").data), len(client.batches.list(limit=100).data)]
    assert [one - other for one, other in zip(after, before, strict=True)] == [1, 1]


@pytest.mark.slow
def test_lists_come_in_pages(client: openai.OpenAI) -> None:
    made_ids = [made(client, texts(1)).id for _ in range(5)]
    for id in made_ids:
        ended(client, client.batches.retrieve(id))
    pages = client.batches.list(limit=2)
    assert [one.id for one, _ in zip(pages, range(5), strict=False)] == made_ids[::-1]
    first = client.batches.list(limit=2)
    assert first.has_more and first.first_id == made_ids[4] and first.last_id == made_ids[3]
    files = client.files.list(order="asc", limit=3)
    oldest = [one.id for one in files.data]
    assert [one.id for one in client.files.list(order="asc", after=oldest[0], limit=2).data] == oldest[1:]
    assert {one.purpose for one in client.files.list(purpose="batch_output")} == {"batch_output"}
    with pytest.raises(openai.BadRequestError):
        client.batches.list(after="batch_nowhere")

"""Output lines in each dialect, in each kind of file."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from tests.jobs.fakes import FakeTokenizer, make_job, read_rows, write_rows
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.request import Completion, Output
from umbel.jobs.read.records import RowHead, Style
from umbel.jobs.write.answers import Renderer
from umbel.jobs.write.openai_answers import Issuer, text_offsets

CHAT = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
TEXT = {"model": "fake", "prompt": "hi", "max_tokens": 2}
PLAIN = {"custom_id": "a", "prompt": "hi", "max_tokens": 2}


def answers(directory: Path, rows: list[Any], name: str = "out.jsonl") -> list[dict[str, Any]]:
    make_job(write_rows(directory / "in.jsonl", rows), directory / name).run()
    return read_rows(directory / name)


def envelope(body: dict[str, Any], url: str = "/v1/chat/completions", name: str = "a") -> dict[str, Any]:
    return {"custom_id": name, "method": "POST", "url": url, "body": body}


def test_plain(tmp_path: Path) -> None:
    (row,) = answers(tmp_path, [PLAIN])
    assert list(row) == ["custom_id", "text", "token_ids", "finish_reason", "usage", "error"]
    assert row["usage"] == {"prompt_tokens": 2, "completion_tokens": 2}
    assert (len(row["token_ids"]), row["finish_reason"], row["error"]) == (2, "length", None)


def test_plain_logprobs_when_asked(tmp_path: Path) -> None:
    rows = answers(tmp_path, [PLAIN | {"logprobs": 2}, PLAIN | {"custom_id": "b", "logprobs": 0}])
    first = rows[0]["logprobs"]
    assert [entry["token_id"] for entry in first] == rows[0]["token_ids"]
    assert "".join(entry["token"] for entry in first) == rows[0]["text"]
    assert first[0]["top"] == [
        {"token_id": 0, "token": "!", "logprob": -1.5},
        {"token_id": 1, "token": '"', "logprob": -2.5},
    ]
    assert rows[1]["logprobs"][0]["top"] == []


def test_plain_logprobs_of_prompts(tmp_path: Path) -> None:
    asked = [{"prompt_logprobs": 1, "max_tokens": 0}, {"prompt_logprobs": 0, "logprob_start_len": 2, "n": 2}]
    rows = answers(tmp_path, [PLAIN | more | {"custom_id": str(i)} for i, more in enumerate(asked)])
    top = [{"token_id": 0, "token": "!", "logprob": -1.5}]
    assert list(rows[0]) == ["custom_id", "text", "token_ids", "finish_reason", "usage", "prompt_logprobs", "error"]
    assert rows[0]["prompt_logprobs"] == [None, {"token_id": ord("i"), "token": "0", "logprob": -0.25, "top": top}]
    assert (rows[0]["text"], rows[0]["token_ids"], rows[0]["finish_reason"]) == ("", [], "length")
    output = Output(0, 2, (Completion(0, "", (), "length"),))
    assert not output.cut and replace(output, outputs=(Completion(0, "", (1,), "length"),)).cut
    assert list(rows[1]) == ["custom_id", "choices", "usage", "prompt_logprobs", "error"]
    assert rows[1]["prompt_logprobs"] == [None, None]


def test_completions_echo_their_prompts(tmp_path: Path) -> None:
    """OpenAI's form; the fake tokenizer shows every token as one character."""
    asked = [{"echo": True, "logprobs": 1}, {"echo": True}, {"prompt_logprobs": 1}, {"echo": False}]
    url = "/v1/completions"
    rows = answers(tmp_path, [envelope(TEXT | more, url, str(i)) for i, more in enumerate(asked)])
    bodies = [row["response"]["body"] for row in rows]
    echoed, short, beside, plain = (body["choices"][0] for body in bodies)
    prompt = "".join(chr(33 + ord(c) % 90) for c in "hi")
    assert [c["text"][:2] for c in (echoed, short)] == [prompt] * 2 and len(echoed["text"]) == len(plain["text"]) + 2
    assert echoed["logprobs"]["tokens"] == list(echoed["text"]) and echoed["logprobs"]["text_offset"] == [0, 1, 2, 3]
    assert echoed["logprobs"]["token_logprobs"] == [None, -0.25, -0.5, -0.5]
    assert echoed["logprobs"]["top_logprobs"][:2] == [None, {prompt[1]: -0.25, "!": -1.5}]
    assert short["logprobs"] is beside["logprobs"] is None and len(beside["text"]) == 2
    assert bodies[2]["prompt_logprobs"] == [
        None,
        {"105": {"logprob": -0.25, "decoded_token": prompt[1]}, "0": {"logprob": -1.5, "decoded_token": "!"}},
    ]
    assert [("prompt_logprobs" in body) for body in bodies] == [False, False, True, False]


def test_chats_have_no_echo(tmp_path: Path) -> None:
    (row,) = answers(tmp_path, [envelope(CHAT | {"echo": True})])
    assert row["response"]["body"]["error"]["code"] == "unsupported_parameter"


def test_plain_samples(tmp_path: Path) -> None:
    (row,) = answers(tmp_path, [PLAIN | {"n": 3, "logprobs": 1}])
    assert list(row) == ["custom_id", "choices", "usage", "error"]
    assert [choice["index"] for choice in row["choices"]] == [0, 1, 2]
    assert row["usage"]["completion_tokens"] == sum(len(choice["token_ids"]) for choice in row["choices"]) == 6
    assert len(row["choices"][2]["logprobs"]) == 2


def test_chat_completion(tmp_path: Path) -> None:
    (row,) = answers(tmp_path, [envelope(CHAT | {"n": 2, "logprobs": True, "top_logprobs": 1})])
    assert row["error"] is None and row["response"]["status_code"] == 200
    body = row["response"]["body"]
    assert (body["object"], body["created"], body["model"]) == ("chat.completion", 1_700_000_000, "fake")
    assert [choice["message"]["role"] for choice in body["choices"]] == ["assistant", "assistant"]
    (first, _) = body["choices"][0]["logprobs"]["content"]
    assert first["bytes"] == list(first["token"].encode()) and len(first["top_logprobs"]) == 1
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_text_completion(tmp_path: Path) -> None:
    (row,) = answers(tmp_path, [envelope(TEXT | {"logprobs": 2}, "/v1/completions")])
    body = row["response"]["body"]
    assert body["object"] == "text_completion"
    logprobs = body["choices"][0]["logprobs"]
    assert "".join(logprobs["tokens"]) == body["choices"][0]["text"]
    assert logprobs["text_offset"] == [0, 1]
    assert list(logprobs["top_logprobs"][0].values()) == [-0.5, -1.5, -2.5]  # the chosen one and the two asked for
    assert logprobs["token_logprobs"] == [-0.5, -0.5]


def test_ids_belong_to_the_row_alone(tmp_path: Path) -> None:
    alone = answers(tmp_path, [envelope(CHAT)])[0]
    beside = answers(tmp_path, [envelope(CHAT), envelope(CHAT, name="b"), b"{"], "two.jsonl")
    assert beside[0] == alone
    assert len({row["id"] for row in beside}) == 3
    assert beside[2]["custom_id"] is None and beside[2]["response"]["body"]["error"]["code"] == "invalid_json_line"


def test_gzip_output_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    rows = [PLAIN | {"custom_id": f"r{i}"} for i in range(50)]
    plain = answers(tmp_path, rows)
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        make_job(tmp_path / "in.jsonl", tmp_path / name).run()
    packed = (tmp_path / "one.jsonl.gz").read_bytes()
    assert packed == (tmp_path / "two.jsonl.gz").read_bytes()
    assert [json.loads(line) for line in gzip.decompress(packed).splitlines()] == plain


def test_parquet_output(tmp_path: Path) -> None:
    rows = [PLAIN | {"logprobs": 1}, PLAIN | {"custom_id": "b", "n": 2}, {"custom_id": "c", "prompt": ""}]
    make_job(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet").run()
    one, two, bad = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert (len(one["token_ids"]), one["error"], one["choices"]) == (2, None, None)
    assert [choice["index"] for choice in two["choices"]] == [0, 1] and two["text"] is None
    assert bad["error"]["code"] == "empty_prompt" and bad["usage"] is None


def test_parquet_output_of_openai_rows(tmp_path: Path) -> None:
    rows = [envelope(CHAT), envelope(CHAT | {"n": 0}, name="b")]
    make_job(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet").run()
    good, bad = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert json.loads(good["response"])["body"]["object"] == "chat.completion" and good["error"] is None
    assert json.loads(bad["response"])["status_code"] == 400 and bad["error"]["code"] == "invalid_value"


def test_tokens_with_one_text_do_not_overwrite_each_other() -> None:
    """Ids 3, 93 and 183 have one text; the chosen token keeps it, and is listed once."""
    top = ((93, -0.1), (183, -0.2), (4, -0.3))
    for chosen, value in ((3, -5.0), (183, -0.2)):
        logprobs = (TokenLogprobs(chosen, value, top),)
        output = Output(0, 1, (Completion(0, "$", (chosen,), "length", None, logprobs),))
        result = Renderer(Issuer("job", "fake"), FakeTokenizer().token_bytes).answer(
            RowHead(0, "a", Style.COMPLETION), output, many=False
        )
        found = json.loads(result.line)["response"]["body"]["choices"][0]["logprobs"]
        others = {f"token_id:{id}": known for id, known in top if id not in (chosen, 4)}
        assert found["top_logprobs"] == [{"$": value, "%": -0.3, **others}]
        assert (found["tokens"], found["text_offset"]) == (["$"], [0])


@pytest.mark.parametrize(("text", "pieces", "offsets"), [
    ("a\u00e9\U0001f600b", [b"a", b"\xc3", b"\xa9", b"\xf0\x9f", b"\x98\x80", b"b"], [0, 1, 1, 2, 2, 3]),
    ("ab", [b"a", b"<end>", b"b", b"<end>"], [0, 1, 1, 2]),  # special tokens that do not show
    ("a\ufffdb", [b"a", b"\xe2", b"b"], [0, 1, 2]),  # bytes that are no character
    ("\ufffd\ufffdb", [b"\xe2", b"\xe2", b"b"], [0, 0, 2]),
    ("ab", [b"a", b"bcd", b"e"], [0, 1, 1]),  # cut by a stop string
    ("", [b"a"], [0]),
])  # fmt: skip
def test_offsets_point_at_the_tokens(text: str, pieces: list[bytes], offsets: list[int]) -> None:
    assert text_offsets(text, pieces) == offsets

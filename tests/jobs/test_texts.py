"""Texts of whole jobs, of models with scripted answers: first blanks, single tokens, stops in every dialect."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from tests.scripted_model import make_scripted
from tests.tiny_models import write_tokenizer
from tests.tiny_tokenizers import write_sentencepiece_like
from umbel.api import LLM
from umbel.cli.main import main
from umbel.ir.params import SamplingParams
from umbel.text.tokenizer import Tokenizer

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
SPOKEN = {"temperature": 0, "ignore_eos": True}


def write_llama(directory: Path) -> None:
    """SentencePiece-like with bytes, and a template that ends in a special token."""
    write_sentencepiece_like(directory, "byte-fallback")
    path = directory / "tokenizer_config.json"
    template = {"chat_template": "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"}
    path.write_text(json.dumps(json.loads(path.read_text()) | template))


def write_byte_level(directory: Path) -> None:
    write_tokenizer(directory, "{{ messages[0]['content'] }}")


def envelope(name: str, url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": name, "method": "POST", "url": url, "body": SPOKEN | body}


def run(model: Path, rows: Sequence[dict[str, Any]], output: str = "out.jsonl", code: int = 0) -> Any:
    """The lines that a job over `rows` writes; of a table its rows."""
    source, out = model / f"{output}.in.jsonl", model / output
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["run", str(source), "-o", str(out), "--model", str(model), "--dtype", "float32", "--threads", "1"]
    assert main(given) == code
    if output.endswith(".parquet"):
        return pyarrow.parquet.read_table(out).to_pylist()
    return [json.loads(line) for line in out.read_text().splitlines()]


def choices(line: dict[str, Any]) -> Any:
    return line["response"]["body"]["choices"]


@pytest.fixture(scope="module")
def indented(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tokenizer]:
    """Goes on behind " a" and "</s>" with two blanks and "was th", behind "<s>" with "was th"; "in" has no end."""
    place = tmp_path_factory.mktemp("indented")
    spoken = ["\u2581a", "\u2581", "\u2581w", "as", "\u2581th", "in"]
    return place, make_scripted(place, write_llama, spoken, ["</s>", "\u2581"], ["<s>", "\u2581w"])


def test_the_first_blank_of_an_answer_is_kept_in_every_dialect(indented: tuple[Path, Tokenizer]):
    place, tokenizer = indented
    limits: list[dict[str, Any]] = [{"max_tokens": 4}, {"max_tokens": 4, "stop": "zz"}, {"stop": ["zz", "in"]}]
    ids = tokenizer.encode(["x a"])[0]
    for i, limit in enumerate(limits):
        prompts = ["a", "x a", "a", ids, [*ids, 2]]
        rows = [{"prompt": prompt, "n": n, **SPOKEN, **limit} for prompt in prompts for n in (1, 2)]
        texts = [c["text"] for line in run(place, rows, f"{i}.jsonl") for c in line.get("choices", [line])]
        assert texts == ["  was th"] * 15
        (table,) = run(place, rows[:1], f"{i}.parquet")
        assert table["text"] == "  was th"
        chat, text = {"messages": [{"role": "user", "content": "a"}]}, {"prompt": "a"}
        for url, prompt in ((CHAT, chat), (TEXT, text)):
            (line,) = run(place, [envelope("1", url, **prompt, **limit, n=2)], f"{i}{len(url)}.jsonl")
            texts = [c["message"]["content"] if url == CHAT else c["text"] for c in choices(line)]
            assert texts == ["  was th"] * 2


def test_an_answer_to_no_text_begins_without_a_blank(indented: tuple[Path, Tokenizer]):
    place, _ = indented
    rows: list[dict[str, Any]] = [
        {"prompt": [1], **SPOKEN, "max_tokens": 3, "stop": stop} for stop in (None, "zz", "th")
    ]
    rows.append(rows[0] | {"skip_special_tokens": False})
    assert [line["text"] for line in run(place, rows, "empty.jsonl")] == ["was th", "was th", "was ", " was th"]


def test_python_gives_the_same_texts(indented: tuple[Path, Tokenizer]):
    place, tokenizer = indented
    params = SamplingParams(temperature=0.0, max_tokens=4, n=2)
    llm = LLM(str(place), dtype="float32", threads=1)
    prompts: list[Any] = ["x a", tokenizer.encode(["x a"])[0], {"messages": [{"role": "user", "content": "a"}]}]
    for output in [*llm.generate(prompts, params), *llm.stream(prompts, params)]:
        assert [c.text for c in output.outputs] == ["  was th"] * 2


def test_token_texts_and_offsets_of_an_answer(indented: tuple[Path, Tokenizer]):
    place, _ = indented
    asked = {"max_tokens": 5, "logprobs": 0}
    rows = [envelope(str(i), TEXT, prompt=prompt, **asked) for i, prompt in enumerate(("x a", [1]))]
    behind, empty = (choices(line)[0] for line in run(place, rows, "offsets.jsonl"))
    assert behind["text"] == "  was thin" and behind["logprobs"]["tokens"] == [" ", " w", "as", " th", "in"]
    assert behind["logprobs"]["text_offset"] == [0, 1, 3, 5, 8]
    assert empty["text"] == "was thinin" and empty["logprobs"]["tokens"] == ["w", "as", " th", "in", "in"]
    assert empty["logprobs"]["text_offset"] == [0, 1, 3, 6, 8]
    for logprobs in (behind["logprobs"], empty["logprobs"]):
        assert [list(top) for top in logprobs["top_logprobs"]] == [[text] for text in logprobs["tokens"]]


@pytest.fixture(scope="module")
def bytes_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says A, an e with an accent, a smiling face and Z behind "!", all of them in bytes."""
    place = tmp_path_factory.mktemp("bytes")
    make_scripted(place, write_byte_level, ["!", *"A\u00c3\u00a9\u00f0\u0141\u013a\u0122Z", "<|im_end|>"])
    return place


def test_bytes_of_tokens_are_their_own(bytes_model: Path):
    word = "A\u00e9\U0001f600Z"
    chat = envelope("1", CHAT, messages=[{"role": "user", "content": "!"}], max_tokens=8, logprobs=True, top_logprobs=2)
    (line,) = run(bytes_model, [chat], "chat.jsonl")
    (choice,) = choices(line)
    content = choice["logprobs"]["content"]
    assert choice["message"]["content"] == word
    assert b"".join(bytes(token["bytes"]) for token in content) == word.encode()
    assert [token["token"] for token in content[:4]] == ["A", "bytes:\\xc3", "bytes:\\xa9", "bytes:\\xf0"]
    for token in content:
        assert token["top_logprobs"][0] == {name: token[name] for name in ("token", "logprob", "bytes")}
    (line,) = run(bytes_model, [envelope("1", TEXT, prompt="!", max_tokens=10, logprobs=3)], "text.jsonl")
    logprobs = choices(line)[0]["logprobs"]
    assert logprobs["text_offset"] == [0, 1, 1, 2, 2, 2, 2, 3, 4, 4]
    assert logprobs["tokens"][8:] == ["<|im_end|>"] * 2


def test_top_logprobs_of_tokens_with_one_text_are_all_there(indented: tuple[Path, Tokenizer]):
    """Many ids of this vocabulary have one text: bytes and letters, blanks and marks."""
    place, _ = indented
    rows = [envelope(str(k), TEXT, prompt="x a", max_tokens=5, logprobs=k) for k in range(6)]
    rows += [envelope("drawn", TEXT, prompt="x a", max_tokens=5, logprobs=5, temperature=2.0, seed=1)]
    for line in run(place, rows, "top.jsonl"):
        logprobs = choices(line)[0]["logprobs"]
        k = 5 if line["custom_id"] == "drawn" else int(line["custom_id"])
        for text, value, top in zip(
            logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
        ):
            assert top[text] == value and len(top) in (max(k, 1), k + 1)
            assert list(top.values()) == sorted(top.values(), reverse=True)


def test_a_newline_that_is_a_byte_stops_at_once(tmp_path: Path):
    make_scripted(tmp_path, write_llama, ["\u2581a", "\u2581th", "in", "<0x0A>"])
    asked: list[dict[str, Any]] = [{"stop": "\n"}, {"stop": "n\n", "include_stop_str_in_output": True}]
    asked += [{"stop": "\n", "min_tokens": 6}, {"stop": "\n\n"}]
    lines = run(tmp_path, [{"prompt": "a", "max_tokens": 9, "logprobs": 0, **SPOKEN, **a} for a in asked])
    assert [line["text"] for line in lines] == [" thin", " thin\n", " thin\n\n\n\n", " thin"]
    assert [len(line["token_ids"]) for line in lines] == [3, 3, 7, 4]
    for line in lines:
        assert line["usage"]["completion_tokens"] == len(line["token_ids"]) == len(line["logprobs"])


def test_a_stop_that_is_a_special_token_ends_the_row_there(bytes_model: Path):
    asked: list[dict[str, Any]] = [{}, {"skip_special_tokens": False}, {"include_stop_str_in_output": True}]
    asked += [{"n": 2}, {"min_tokens": 11}]
    row = {"prompt": "!", "max_tokens": 12, "stop": ["zz", "<|im_end|>"], **SPOKEN}
    lines = run(bytes_model, [row | a for a in asked], "special.jsonl")
    word = "A\u00e9\U0001f600Z"
    texts = [[c["text"] for c in line.get("choices", [line])] for line in lines]
    assert texts == [[word], [word], [word + "<|im_end|>"], [word] * 2, [word]]
    counts = [[len(c["token_ids"]) for c in line.get("choices", [line])] for line in lines]
    assert counts == [[9], [9], [9], [9, 9], [12]]
    assert all(c["finish_reason"] == "stop" for line in lines for c in line.get("choices", [line]))


def test_a_stop_over_the_edge_of_prompt_and_answer_does_not_match(indented: tuple[Path, Tokenizer]):
    place, _ = indented
    rows = [{"prompt": "x a", "max_tokens": 4, "stop": stop, **SPOKEN} for stop in ("a ", "a  w", "  w", " ")]
    texts = [line["text"] for line in run(place, rows, "edge.jsonl")]
    assert texts == ["  was th", "  was th", "", ""]


def test_the_text_of_a_stop_token_is_not_shown(indented: tuple[Path, Tokenizer]):
    place, tokenizer = indented
    stop = tokenizer.backend.token_to_id("\u2581th")
    asked: list[dict[str, Any]] = [{}, {"stop": "zz"}, {"include_stop_str_in_output": True}, {"stop": "th"}]
    asked += [{"stop": "th", "include_stop_str_in_output": True}, {"n": 2}, {"min_tokens": 4}]
    lines = run(
        place, [{"prompt": "x a", "stop_token_ids": [stop], "max_tokens": 6, **SPOKEN, **a} for a in asked], "p.jsonl"
    )
    texts = [[c["text"] for c in line.get("choices", [line])] for line in lines]
    assert texts[:6] == [["  was"], ["  was"], ["  was th"], ["  was"], ["  was th"], ["  was"] * 2]
    assert all(c["token_ids"][-1] == stop for line in lines[:6] for c in line.get("choices", [line]))
    assert all(len(c["token_ids"]) == 4 for line in lines[:6] for c in line.get("choices", [line]))


def test_stops_that_special_tokens_keep_from_matching_are_told(bytes_model: Path, capsys: pytest.CaptureFixture[str]):
    stops = ["a<|im_end|>", "<|im", "end|>", "<|im_end|>", "<", "im"]
    row = {"prompt": [5], "max_tokens": 2, "stop": stops[:4], **SPOKEN}
    rows = [row, row, row | {"stop": stops[4:]}, row | {"stop": "b<|im_end|>", "skip_special_tokens": False}]
    run(bytes_model, rows, "told.jsonl")
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: the stop string")]
    assert len(told) == 3 and all("<|" in line and "special" in line for line in told)
    for stop in stops[:3]:
        assert sum(f"stop string {stop!r} " in line for line in told) == 1
    llm = LLM(str(bytes_model), dtype="float32", threads=1)
    with pytest.warns(UserWarning, match="special token"):
        llm.generate([[5]] * 3, SamplingParams(max_tokens=1, stop=("<|im",)))


def test_stops_without_a_tokenizer_are_errors_of_their_rows(tmp_path: Path):
    make_scripted(tmp_path, write_byte_level, ["a", "b"])
    (tmp_path / "tokenizer.json").unlink()
    row = {"prompt": [65], "max_tokens": 2, **SPOKEN}
    bad, good = run(tmp_path, [row | {"stop": "x"}, row], code=3)
    assert bad["error"]["code"] == "unsupported_parameter" and bad["error"]["param"] == "stop"
    assert len(good["token_ids"]) == 2

"""Tokens of prompts and conversations, and their texts."""

from __future__ import annotations

import httpx

from umbel.api import LLM

MESSAGES = [{"role": "user", "content": "hello there"}]


def test_tokens_of_a_prompt(client: httpx.Client, llm: LLM) -> None:
    found = client.post("/tokenize", json={"prompt": "hello there", "return_token_strs": True}).json()
    assert found["tokens"] == llm.tokenizer.encode(["hello there"])[0]
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert found["max_model_len"] == llm.spec.max_positions
    text = client.post("/detokenize", json={"tokens": found["tokens"]}).json()["prompt"]
    assert text == llm.tokenizer.decode(found["tokens"], skip_special_tokens=False)


def test_tokens_of_a_conversation_are_those_of_its_prompt(client: httpx.Client) -> None:
    found = client.post("/tokenize", json={"messages": MESSAGES}).json()
    answer = client.post("/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 1}).json()
    assert found["count"] == answer["usage"]["prompt_tokens"]


def test_what_is_no_token(client: httpx.Client) -> None:
    for path, body in (("/tokenize", {"prompt": 5}), ("/detokenize", {"tokens": [10**6]}), ("/detokenize", {})):
        assert client.post(path, json=body).status_code == 400

"""Tokenizers out of GGUF files against those they were made of: SentencePiece itself, transformers, tokenizer.json."""

from __future__ import annotations

import json
import random
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny_models import TEXTS, make_model
from umbel.errors import ModelError
from umbel.ir.chat import Chat
from umbel.models.families import read_spec
from umbel.models.sources.gguf_splits import SPLITS
from umbel.text.tokenizer import Tokenizer

pytest.importorskip("gguf", reason="gguf is not installed here")
gguf_models = import_module("tests.gguf_models")  # behind the check, as it needs the package
SHARED = Path(__file__).parents[3] / "shared" / "data"
UNKNOWN_TO_TRANSFORMERS = {"chatglm-bpe", "command-r", "glm4", "refact", "smollm", "starcoder"}
EMBEDDING = {"token_embd.weight": (np.zeros((4, 32), np.float32), "F32")}
PIECES = (
    *("", " ", "  ", "\n", "\n\n", "\t", "\r\n", "Once upon", "report", " the", "DON'T", "we've", "it's ", "1234567"),
    *(
        "3.14",
        "\u00e9",
        "e\u0301",
        "\u4e2d\u6587",
        "\u65e5\u672c\u8a9e",
        "\U0001f600",
        "\U0001f469\u200d\U0001f467",
        "\u00c0\u00c9",
    ),
    *(
        "stra\u00dfe",
        "\u0645\u0631\u062d\u0628\u0627",
        "\u0928\u092e\u0938\u094d\u0924\u0947",
        "!!!",
        " ...",
        "a/b/",
        "//\n",
        "\u2581",
    ),
    *(
        "x = [i for i in y]",
        "CamelCaseWord",
        "snake_case",
        "\u00b2\u00b3",
        "\u00bd",
        "\u0663\u0664",
        "\u00a0",
        "\u3000",
        "\x00",
    ),
)


def texts(count: int) -> list[str]:
    rng = random.Random(7)
    return ["", *PIECES, *TEXTS, *("".join(rng.choices(PIECES, k=rng.randint(2, 9))) for _ in range(count))]


def load(target: Path, values: dict[str, Any]) -> Tokenizer:
    return Tokenizer.load(gguf_models.write_gguf(target, "llama", values, EMBEDDING))


def sentencepiece_values(vocabulary: Any) -> dict[str, Any]:
    """The metadata that llama.cpp's converter makes of a SentencePiece model."""
    size = vocabulary.vocab_size()
    kinds = [
        2 if vocabulary.is_unknown(i) else 3 if vocabulary.is_control(i) else 6 if vocabulary.is_byte(i) else 1
        for i in range(size)
    ]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [vocabulary.id_to_piece(i) for i in range(size)],
        "tokenizer.ggml.scores": [float(vocabulary.get_score(i)) for i in range(size)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": vocabulary.bos_id(),
        "tokenizer.ggml.eos_token_id": vocabulary.eos_id(),
        "tokenizer.ggml.unknown_token_id": vocabulary.unk_id(),
    }


def test_sentencepiece_ids_are_those_of_sentencepiece(tmp_path: Path):
    library = pytest.importorskip("sentencepiece")
    path = SHARED / "tokenizers" / "mistral_v1" / "tokenizer.model"
    if not path.exists():
        pytest.skip("needs a SentencePiece model of the shared data")
    vocabulary = library.SentencePieceProcessor(str(path))
    tokenizer = load(tmp_path / "m.gguf", sentencepiece_values(vocabulary))
    found = texts(2_000)
    for text, got in zip(found, tokenizer.encode(found), strict=True):
        assert got == ([vocabulary.bos_id(), *vocabulary.encode(text)]), repr(text)
        back = tokenizer.decode(got)
        assert back == text or "\u2581" in text, repr(text)  # which SentencePiece takes for a space


def test_sentencepiece_tokens_are_those_of_tokenizer_json(tmp_path: Path):
    directory = SHARED / "models" / "stories260K"
    if not directory.exists():
        pytest.skip("needs a model of the shared data")
    made = json.loads((directory / "tokenizer.json").read_text())
    tokens = sorted(made["model"]["vocab"], key=made["model"]["vocab"].get)
    values = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        # merges were made best first, and a token is as good as its first merge
        "tokenizer.ggml.scores": [float(-i) for i in range(len(tokens))],
        "tokenizer.ggml.token_type": [2, 3, 3, *(6 if token.startswith("<0x") else 1 for token in tokens[3:])],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    tokenizer, own, found = load(tmp_path / "m.gguf", values), Tokenizer.load(directory), texts(500)
    assert tokenizer.encode(found) == own.encode(found)
    assert tokenizer.special_tokens == own.special_tokens


def test_byte_level_ids_and_chats_are_those_of_tokenizer_json(tmp_path: Path):
    directory = make_model(tmp_path / "m")
    tokenizer = Tokenizer.load(gguf_models.make_gguf(directory, tmp_path / "m.gguf"))
    own, chat = Tokenizer.load(directory), [Chat([{"role": "user", "content": "Is it the <|im_end|> report?"}])]
    found = [*texts(500), "<|im_start|>user\n"]
    assert tokenizer.encode(found) == own.encode(found)
    assert tokenizer.decode_batch(own.encode(found)) == own.decode_batch(own.encode(found))
    assert tokenizer.encode_chat(chat) == own.encode_chat(chat)
    assert (tokenizer.eos_id, tokenizer.bos_id) == (own.eos_id, own.bos_id)


def test_gpt2_ids_are_those_of_transformers(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    directory = SHARED / "tokenizers" / "gpt2"
    if not directory.exists():
        pytest.skip("needs a tokenizer of the shared data")
    vocabulary = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
    lines = (directory / "merges.txt").read_text(encoding="utf-8").split("\n")
    merges = [line for line in lines if line and not line.startswith("#version")]
    tokenizer = load(tmp_path / "m.gguf", byte_level_values(vocabulary, merges, "gpt-2", bos=50_256))
    own, found = transformers.GPT2Tokenizer(vocabulary, [tuple(merge.split(" ")) for merge in merges]), texts(1_000)
    assert tokenizer.encode(found) == own(found)["input_ids"]


@pytest.mark.parametrize("name", sorted(SPLITS.keys() - UNKNOWN_TO_TRANSFORMERS))
def test_texts_are_cut_as_transformers_cuts_them(name: str, tmp_path: Path):
    """Its own conversion of GGUF tokenizers, and of Qwen2 its tokenizer, where they know the name."""
    mapping = pytest.importorskip("transformers.integrations.gguf.gguf_tokenizer_mapping")
    made = json.loads((make_model(tmp_path / "m") / "tokenizer.json").read_text())["model"]
    values = byte_level_values(made["vocab"], [" ".join(merge) for merge in made["merges"]], name)
    tokenizer, found = load(tmp_path / "m.gguf", values | {"tokenizer.ggml.add_bos_token": False}), texts(300)
    assert name in mapping.GGUF_PRE_TOKENIZER_SPLITS or name in ("gpt-2", "olmo")  # which need no expression
    renamed = {key.removeprefix("tokenizer.ggml."): value for key, value in values.items()}
    given = {**renamed, "tokenizer_type": "gpt2", "pre_tokenizer_type": name}  # as it calls them
    own, _ = mapping.convert_gguf_tokenizer("llama", given)
    plain = [text for text in found if SPLITS[name].nfc is False or text.isascii()]  # it leaves the normalisation out
    if SPLITS[name].whole:
        own.model.ignore_merges = True  # as the tokenizer.json files of these models have it
    assert tokenizer.encode(plain) == [e.ids for e in own.encode_batch(plain, add_special_tokens=False)]


def test_qwen2_ids_are_those_of_transformers(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    made = json.loads((make_model(tmp_path / "m") / "tokenizer.json").read_text())["model"]
    values = byte_level_values(made["vocab"], [" ".join(merge) for merge in made["merges"]], "qwen2")
    own = transformers.Qwen2Tokenizer(made["vocab"], [tuple(merge) for merge in made["merges"]])
    found = [text for text in texts(500) if "<|" not in text]
    assert load(tmp_path / "m.gguf", values).encode(found) == own(found)["input_ids"]


def test_single_digits(tmp_path: Path):
    """As the tokenizer.json files of SmolLM and StarCoder have it."""
    made = json.loads((make_model(tmp_path / "m") / "tokenizer.json").read_text())["model"]
    vocabulary = made["vocab"] | {"12": 400}
    values = byte_level_values(vocabulary, ["1 2"], "smollm")
    assert load(tmp_path / "m.gguf", values).encode(["a12"]) == [[vocabulary[char] for char in "a12"]]


def byte_level_values(vocabulary: dict[str, int], merges: list[str], name: str, bos: int = 0) -> dict[str, Any]:
    width = max(vocabulary.values()) + 1
    tokens = {i: token for token, i in vocabulary.items()}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.tokens": [tokens.get(i, f"[PAD{i}]") for i in range(width)],
        "tokenizer.ggml.token_type": [1 if i in tokens else 5 for i in range(width)],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": bos,
    }


@pytest.mark.parametrize(
    ("name", "stated", "begins"),
    [("llama-bpe", None, True), ("llama-bpe", False, False), ("gpt-2", None, False), ("gpt-2", True, True)],
)
def test_texts_begin_as_the_file_says(name: str, stated: bool | None, begins: bool, tmp_path: Path):
    made = json.loads((make_model(tmp_path / "m") / "tokenizer.json").read_text())["model"]
    values = byte_level_values(made["vocab"], [" ".join(merge) for merge in made["merges"]], name)
    tokenizer = load(tmp_path / "m.gguf", values | {"tokenizer.ggml.add_bos_token": stated})
    (ids,) = tokenizer.encode(["the"])
    assert (ids[0] == 0) == begins
    assert tokenizer.encode(["the"], add_special_tokens=False)[0] == ids[begins:]


def test_several_templates_are_taken_by_name(tmp_path: Path):
    directory = make_model(tmp_path / "m")
    values = {"tokenizer.chat_template": "plain", "tokenizer.chat_template.tool_use": "tools"}
    tokenizer = Tokenizer.load(gguf_models.make_gguf(directory, tmp_path / "m.gguf", **values))
    assert tokenizer.render([{"role": "user", "content": "Hi"}]) == "plain"


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"tokenizer.ggml.model": "bert"}, r"tokenizer.ggml.model='bert': must be one of gpt2, llama"),
    "another cut": ({"tokenizer.ggml.pre": "qwen3"}, r"tokenizer.ggml.pre='qwen3'.*did you mean 'qwen2'"),
    "no cut": ({"tokenizer.ggml.pre": None}, r"tokenizer.ggml.pre=None: how texts are cut"),
    "no tokens": ({"tokenizer.ggml.tokens": None}, r"tokenizer.ggml.tokens is missing"),
    "numbers as tokens": ({"tokenizer.ggml.tokens": [1, 2]}, r"tokenizer.ggml.tokens is missing, or is no list of str"),
    "no kinds": ({"tokenizer.ggml.token_type": [1]}, r"tokenizer.ggml.token_type must be a list of 300 numbers"),
    "no merges": ({"tokenizer.ggml.merges": None}, r"tokenizer.ggml.merges is missing"),
    "damaged merges": ({"tokenizer.ggml.merges": ["a b c"]}, r"not a tokenizer that can be read"),
    "end beyond": ({"tokenizer.ggml.eos_token_id": 300}, r"tokenizer.ggml.eos_token_id=300: there are 300 tokens"),
    "no beginning": ({"tokenizer.ggml.add_bos_token": True}, r"texts are to have bos added, but there is no"),
    "flag": ({"tokenizer.ggml.add_bos_token": 1}, r"tokenizer.ggml.add_bos_token=1: must be true or false"),
    "none": ({"tokenizer.ggml.model": None}, r"it holds no tokenizer: give prompts as token ids"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(name: str, tmp_path: Path):
    metadata, message = FAULTS[name]
    path = gguf_models.make_gguf(make_model(tmp_path / "m"), tmp_path / "m.gguf", **metadata)
    with pytest.raises(ModelError, match=message) as caught:
        Tokenizer.load(path)
    assert "m.gguf" in str(caught.value)
    if name == "none":
        assert read_spec(path).vocab_size == 300

"""Hostile model directories: read as they are, or refused with a planned error."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer as Tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from tests.fuzz.hostile import Draw, as_json, changed, damaged, nested
from tests.fuzz.judge import Fault, survive
from tests.tiny_models import FAMILIES, make_model
from umbel.errors import InvalidRequest, ModelError, UmbelError
from umbel.ir.chat import Chat
from umbel.ir.spec import ModelSpec
from umbel.models.families import read_spec
from umbel.models.safetensors_header import read_header
from umbel.text.tokenizer import Tokenizer

GENERATION = {"eos_token_id": [0, 2], "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.0, "do_sample": True}
ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": {"content": "<s>", "lstrip": False},
    "eos_token": "<|im_end|>",
    "added_tokens_decoder": {"400": {"content": "<|tool|>", "special": True, "normalized": False}},
    "additional_special_tokens": ["<|x|>"],
    "extra_special_tokens": {"boi_token": "<|boi|>"},
    "chat_template": [{"name": "default", "template": "{{ messages[0].content }}"}],
    "clean_up_tokenization_spaces": False,
}


@functools.cache
def files(family: str) -> dict[str, bytes]:
    """The files of a sound model directory."""
    with tempfile.TemporaryDirectory() as directory:
        make_model(Path(directory), family)
        return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


@st.composite
def hostile_json(draw: Draw, tree: Any) -> bytes:
    """A JSON file with places changed, a place nested deeply, or bytes changed."""
    kind = draw(st.sampled_from(("tree", "tree", "tree", "tree", "nested", "bytes")))
    if kind == "tree":
        return as_json(draw, draw(changed(tree)))
    data = json.dumps(tree).encode()
    if kind == "nested":
        return data.replace(b"false", draw(nested()).encode(), 1)
    return draw(damaged(data))


def loaded(name: str, family: str = "llama") -> Any:
    return json.loads(files(family)[name])


@st.composite
def config_files(draw: Draw) -> dict[str, bytes]:
    """config.json and generation_config.json, at least one of them hostile."""
    config = loaded("config.json", draw(st.sampled_from(sorted(FAMILIES)))) | {"rope_scaling": ROPE}
    sound = {"config.json": json.dumps(config).encode(), "generation_config.json": json.dumps(GENERATION).encode()}
    bad = {"config.json": draw(hostile_json(config))}
    if draw(st.booleans()):
        bad = {"generation_config.json": draw(hostile_json(GENERATION))}
    return sound | bad


def check_model_configs(content: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        for file, data in content.items():
            (Path(name) / file).write_bytes(data)
        spec = survive(lambda: read_spec(Path(name)), ModelError)
    if not isinstance(spec, (ModelSpec, ModelError)):
        raise Fault(f"the model is {spec!r:.100}")


@functools.cache
def tokenizer_jsons() -> tuple[bytes, ...]:
    """Sound tokenizers of the usual kinds, with all the parts that files have."""
    pieces = [("<unk>", 0.0), ("\u2581", -2.0), *((letter, -3.0) for letter in "abcdeinoprstuw"), ("<0x0A>", -9.0)]
    unigram = Tokenizers(models.Unigram(pieces, 0, byte_fallback=False))
    unigram.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace("  ", " "), normalizers.Lowercase()]
    )
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "once": 3, "##e": 4, "up": 5, "##on": 6}
    wordpiece = Tokenizers(models.WordPiece(words, unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer()
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordpiece.decoder = decoders.WordPiece()
    wordpiece.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    llama = Tokenizers(
        models.BPE({"<unk>": 0, "\u2581": 1, "a": 2, "<0x0A>": 3}, [], byte_fallback=True, unk_token="<unk>")
    )
    llama.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    llama.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return (files("llama")["tokenizer.json"], *(each.to_str().encode() for each in (unigram, wordpiece, llama)))


@st.composite
def exploding(draw: Draw) -> dict[str, Any]:
    """A normaliser that makes a text many times as long."""
    grow = {"type": "Replace", "pattern": {"String": draw(st.sampled_from(("e", "", " ")))}, "content": "ee"}
    return {"type": "Sequence", "normalizers": [grow] * draw(st.sampled_from((1, 12, 60)))}


@st.composite
def tokenizer_dir(draw: Draw) -> dict[str, bytes]:
    """The files of a tokenizer, one of them hostile."""
    sound = {"tokenizer.json": draw(st.sampled_from(tokenizer_jsons()))}
    sound["tokenizer_config.json"] = json.dumps(TOKENIZER_CONFIG).encode()
    kind = draw(st.sampled_from(("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "template")))
    if kind == "template":
        return sound | {"chat_template.jinja": draw(damaged(b"{{ messages[0].content }}"))}
    tree = json.loads(sound.get(kind, b'{"bos_token": {"content": "<s>"}, "pad_token": "<|pad|>", "x": false}'))
    if kind == "tokenizer.json" and draw(st.integers(0, 9)) == 0:
        return sound | {kind: json.dumps(tree | {"normalizer": draw(exploding())}).encode()}
    return sound | {kind: draw(hostile_json(tree))}


def check_tokenizers(content: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        for file, data in content.items():
            (Path(name) / file).write_bytes(data)
        tokenizer = survive(lambda: Tokenizer.load(Path(name)), ModelError)
        if isinstance(tokenizer, UmbelError):
            return
        survive(lambda: tokenizer.check_fits(2**24), ModelError)
        ids = survive(lambda: tokenizer.encode(["Once upon a time <|tool|>"]), InvalidRequest)
        if isinstance(ids, list):
            survive(lambda: tokenizer.decode_batch([*ids, [0, 1, 399, 400]]))
        survive(lambda: tokenizer.encode_chat([Chat([{"role": "user", "content": "Hi"}])]), InvalidRequest, ModelError)


@st.composite
def weights_file(draw: Draw) -> bytes:
    """A safetensors file whose header or bytes are hostile."""
    data = files("llama")["model.safetensors"]
    size = int.from_bytes(data[:8], "little")
    if draw(st.booleans()):
        return draw(damaged(data[: 8 + size])) + data[8 + size :]
    tree = json.loads(data[8 : 8 + size])
    kept = dict(list(tree.items())[:3])
    header = draw(hostile_json(kept))
    length = draw(st.sampled_from((len(header), len(header), len(header), 0, len(header) + 1, 2**40, 2**64 - 1)))
    return length.to_bytes(8, "little") + header + bytes(draw(st.sampled_from((0, 76800, 80000))))


def check_safetensors_headers(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.safetensors"
        path.write_bytes(data)
        found = survive(lambda: read_header(path), ModelError)
        if isinstance(found, UmbelError):
            return
        try:
            with safe_open(path, "numpy") as other:
                names = set(other.keys())
        except SafetensorError as error:
            raise Fault(f"accepted, and refused by the library: {error}") from None
    if names != set(found):
        raise Fault(f"{len(found)} tensors, {len(names)} by the library")


@functools.cache
def gguf_file() -> bytes:
    """A sound GGUF file, small as its vocabulary is."""
    from tests.gguf_models import make_gguf

    with tempfile.TemporaryDirectory() as directory:
        return make_gguf(make_model(Path(directory) / "m"), Path(directory) / "m.gguf").read_bytes()


@st.composite
def gguf_files(draw: Draw) -> bytes:
    """A GGUF file with a hostile header."""
    data = gguf_file()
    end = data.index(b"blk.1.ffn_up.weight")  # one of the last names
    return draw(damaged(data[:end])) + data[end:]


def check_gguf_files(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.gguf"
        path.write_bytes(data)
        survive(lambda: read_spec(path), ModelError)
        survive(lambda: Tokenizer.load(path), ModelError)


READERS = {
    "gguf_files": (gguf_files(), check_gguf_files),
    "model_configs": (config_files(), check_model_configs),
    "tokenizers": (tokenizer_dir(), check_tokenizers),
    "safetensors_headers": (weights_file(), check_safetensors_headers),
}

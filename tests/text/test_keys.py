"""Special tokens wherever a model directory may declare them, and every key of tokenizer_config.json, against
transformers; files that make no sense; docs/tokenizer_keys.md."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors

from tests.text import keys_doc
from tests.tiny_models import write_tokenizer
from tests.tiny_tokenizers import write_sentencepiece_like
from umbel.errors import InvalidRequest, ModelError
from umbel.text import keys as tokenizer_keys
from umbel.text.tokenizer import Tokenizer

CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
TOOL = {"content": "<|tool|>", **FLAGS, "special": True}
TYPED = {"__type": "AddedToken", **TOOL}
PLAIN = TOOL | {"content": "<plain>", "special": False, "normalized": True}
OTHER = TOOL | {"content": "<x>"}
WHERE: dict[str, dict[str, dict[str, Any]]] = {
    "added_tokens_decoder": {CONFIG: {"added_tokens_decoder": {"301": PLAIN, "300": TOOL, "302": OTHER}}},
    "flags of a known token": {CONFIG: {"added_tokens_decoder": {"1": PLAIN | {"content": "<|im_start|>"}}}},
    "a part of the vocabulary": {CONFIG: {"added_tokens_decoder": {"5": TOOL | {"content": "th"}}, "pad_token": "qu"}},
    "additional list": {CONFIG: {"additional_special_tokens": ["<|tool|>", "<x>"]}},
    "additional list of tokens": {CONFIG: {"additional_special_tokens": [TYPED, "<x>"]}},
    "extra list": {CONFIG: {"extra_special_tokens": ["<|tool|>", TYPED | {"content": "<x>", "lstrip": True}]}},
    "extra beside additional": {CONFIG: {"extra_special_tokens": ["<x>"], "additional_special_tokens": ["<|tool|>"]}},
    "empty extra": {CONFIG: {"extra_special_tokens": [], "additional_special_tokens": ["<|tool|>"]}},
    "extra by name": {CONFIG: {"extra_special_tokens": {"image_token": "<|tool|>", "end": "<x>"}}},
    "model specific": {CONFIG: {"model_specific_special_tokens": {"image_token": "<|tool|>"}}},
    "own names": {CONFIG: {"boi_token": "<|tool|>", "eoi_token": TYPED | {"content": "<x>"}, "some_token": 7}},
    "named": {CONFIG: {"pad_token": "<|tool|>", "mask_token": TYPED | {"content": "<x>"}, "cls_token": None}},
    "named and plain": {CONFIG: {"pad_token": "<plain>", "added_tokens_decoder": {"300": PLAIN}}},
    "map": {MAP: {"pad_token": "<|tool|>", "additional_special_tokens": ["<x>"], "boi_token": "<y>"}},
    "map of tokens": {MAP: {"pad_token": {"content": "<|tool|>", **FLAGS}, "eos_token": "<|endoftext|>"}},
    "map over config": {CONFIG: {"pad_token": "<x>"}, MAP: {"pad_token": "<|tool|>"}},
    "map with extra": {CONFIG: {"extra_special_tokens": ["<x>"]}, MAP: {"extra_special_tokens": ["<|tool|>"]}},
    "map with extra by name": {MAP: {"extra_special_tokens": {"image_token": "<|tool|>"}}},
    "map beside a decoder": {CONFIG: {"added_tokens_decoder": {}}, MAP: {"pad_token": "<|tool|>"}},
    "added": {ADDED: {"<x>": 301, "<|tool|>": 300}},
    "added and special": {ADDED: {"<x>": 301, "<|tool|>": 300}, MAP: {"additional_special_tokens": ["<|tool|>"]}},
    "added beside a decoder": {CONFIG: {"added_tokens_decoder": {}}, ADDED: {"<|tool|>": 300}},
    "split": {CONFIG: {"split_special_tokens": True}},
    "no effect": {CONFIG: {"add_bos_token": True, "add_eos_token": True, "add_prefix_space": True, "legacy": False,
                           "do_lower_case": True, "padding_side": "left", "model_max_length": 4}},
}  # fmt: skip
TEXTS = (
    "a<|tool|>b <|tool|> c",
    "<x> <x>y<plain>",
    "the quick<|im_start|>user<|im_end|>",
    "<y>q <|endoftext|>",
    " report",
    "it 's , . fine",
)


def write(directory: Path, files: dict[str, dict[str, Any]]) -> None:
    write_tokenizer(directory)
    for name, changes in files.items():
        path = directory / name
        old = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(old | changes))


@pytest.mark.parametrize("where", WHERE)
def test_declared_tokens_are_those_of_transformers(where: str, tmp_path: Path):
    write(tmp_path, WHERE[where])
    own = Tokenizer.load(tmp_path)
    other = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tmp_path)
    assert type(other).__name__ in ("TokenizersBackend", "PreTrainedTokenizerFast")
    assert own.encode(TEXTS) == other(list(TEXTS))["input_ids"]
    assert own.vocab_size == len(other)
    ids = range(len(other))
    assert own.special_ids == {i for i in ids if other.decode([i], skip_special_tokens=True) == ""}
    assert own.special_tokens == {name: str(token) for name, token in other.special_tokens_map.items()}
    for skip in (True, False):
        rows = [*own.encode(TEXTS), *([i, i] for i in ids)]
        assert own.decode_batch(rows, skip_special_tokens=skip) == other.batch_decode(rows, skip_special_tokens=skip)


def test_the_places_differ_from_a_tokenizer_without_them(tmp_path: Path):
    """Most of the cases above change what is encoded or dropped, else they would say nothing."""
    seen = set()
    for where, files in WHERE.items():
        directory = tmp_path / where
        directory.mkdir()
        write(directory, files)
        own = Tokenizer.load(directory)
        seen.add(json.dumps([own.encode(TEXTS), sorted(own.special_ids), sorted(own.special_tokens.items())]))
    assert len(seen) >= len(WHERE) - 7


@pytest.mark.parametrize("flag", ["clean_up_tokenization_spaces", None])
def test_cleaning_up_is_that_of_transformers(flag: str | None, tmp_path: Path):
    for kind in ("bpe", "unigram"):
        for corrupt in (False, True):
            directory = tmp_path / f"{kind} {corrupt}"
            directory.mkdir()
            write_tokenizer(directory) if kind == "bpe" else write_sentencepiece_like(directory, kind)
            path = directory / CONFIG
            changes = {} if flag is None else {flag: True}
            changes["clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"] = corrupt
            path.write_text(
                json.dumps(json.loads(path.read_text()) | {"clean_up_tokenization_spaces": False} | changes)
            )
            own = Tokenizer.load(directory)
            other = pytest.importorskip("transformers").PreTrainedTokenizerFast.from_pretrained(directory)
            rows = own.encode(["fine , then . or n't ' s", "re 've"], add_special_tokens=False)
            assert own.decode_batch(rows) == other.batch_decode(rows, skip_special_tokens=True)


READS = re.compile(
    r"""kwargs\.(?:pop|get|setdefault)\(\s*["'](\w+)["']"""
    r"""|kwargs\[["'](\w+)["']\]|["'](\w+)["'] (?:not )?in (?:init_)?kwargs"""
)


def test_every_key_that_transformers_reads_is_in_a_list():
    transformers = pytest.importorskip("transformers")
    found: set[str] = set()
    for kind in (transformers.PreTrainedTokenizerFast, transformers.PreTrainedTokenizerBase):
        for name in ("__init__", "_from_pretrained", "convert_to_native_format"):
            source = inspect.getsource(getattr(kind, name))
            found |= {next(filter(None, groups)) for groups in READS.findall(source)}
    assert len(found) > 40, "the source of transformers reads otherwise than this test expects"
    known = tokenizer_keys.OBEYED | tokenizer_keys.NAMED.keys() | tokenizer_keys.WITHOUT_EFFECT | {"auto_map"}
    assert found - known == set()
    lists = (tokenizer_keys.OBEYED, frozenset(tokenizer_keys.NAMED), tokenizer_keys.WITHOUT_EFFECT)
    assert sum(map(len, lists)) == len(frozenset().union(*lists))


@pytest.mark.parametrize("key", tokenizer_keys.NAMED)
def test_named(key: str, tmp_path: Path):
    write(tmp_path, {CONFIG: {key: ["x"]}})
    (note,) = Tokenizer.load(tmp_path).notes
    assert note.startswith(f"{CONFIG}: {key}=['x'] is not applied")
    write(tmp_path, {CONFIG: {key: None}})
    assert Tokenizer.load(tmp_path).notes == ()


@pytest.mark.parametrize("key", sorted(tokenizer_keys.WITHOUT_EFFECT))
def test_without_effect(key: str, tmp_path: Path):
    """Any value changes neither ids nor texts, nor stops the model from being loaded."""
    write_tokenizer(tmp_path)
    before = Tokenizer.load(tmp_path)
    for value in (True, 7, "left", ["x"], {"a": "b"}):
        write(tmp_path, {CONFIG: {key: value}})
        after = Tokenizer.load(tmp_path)
        assert (after.encode(TEXTS), after.special_ids, after.notes) == (before.encode(TEXTS), before.special_ids, ())


def test_the_page_is_made_from_the_lists():
    assert keys_doc.DOC.read_text(encoding="utf-8") == keys_doc.document()


def test_dropout_is_not_applied(tmp_path: Path):
    write_tokenizer(tmp_path)
    before = Tokenizer.load(tmp_path).encode(TEXTS * 20)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["dropout"] = 0.5
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    own = Tokenizer.load(tmp_path)
    assert own.encode(TEXTS * 20) == before
    assert own.notes == ("tokenizer.json: dropout=0.5 is not applied: a text has one encoding",)


ODD: tuple[Any, ...] = (
    7,
    True,
    -1,
    2**40,
    1e300,
    "x",
    "\ud800",
    [7],
    ["\ud800"],
    [None],
    [[]],
    {"a": 7},
    {"7": {}},
    {"7": 7},
)
ODD_KEYS = (
    "added_tokens_decoder",
    "additional_special_tokens",
    "extra_special_tokens",
    "model_specific_special_tokens",
    "bos_token",
    "pad_token",
    "clean_up_tokenization_spaces",
    "split_special_tokens",
    "chat_template",
)


@pytest.mark.parametrize("name", [CONFIG, MAP])
@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_values_are_named_errors_or_understood(name: str, key: str, tmp_path: Path):
    token = {"content": "<t>", "special": True}
    odd = [*ODD, {"9" * 5000: token}, {"-1": token}, {"1e3": token}, {"300": token | {"lstrip": 1}}, {"x": "\ud800"}]
    for value in odd:
        write(tmp_path, {name: {key: value}})
        try:
            own = Tokenizer.load(tmp_path)
        except ModelError as error:
            assert str(tmp_path) in str(error) and len(str(error)) < 500
        else:
            own.encode(TEXTS)


@pytest.mark.parametrize("added", [{"<x>": "1"}, {"<x>": True}, {"<x>": None}, {"\ud800": 1}, {"": 1}, {"<x>": 2**70}])
def test_odd_added_tokens(added: dict[str, Any], tmp_path: Path):
    write(tmp_path, {ADDED: added})
    try:
        Tokenizer.load(tmp_path).encode(TEXTS)
    except ModelError as error:
        assert str(tmp_path) in str(error)


def write_backend(directory: Path, **parts: Any) -> None:
    """A tokenizer of single letters with other parts."""
    backend = Backend(models.BPE(vocab={"a": 0, "b": 1, " ": 2}, merges=[]))
    for name, part in parts.items():
        setattr(backend, name, part)
    backend.save(str(directory / "tokenizer.json"))


def test_parts_that_put_much_around_a_text_are_refused(tmp_path: Path):
    write_backend(tmp_path, normalizer=normalizers.Prepend("b" * 10**6))
    with pytest.raises(ModelError, match="may make a text over"):
        Tokenizer.load(tmp_path)
    template = processors.TemplateProcessing(single="b " * 2000 + "$A", special_tokens=[("b", 1)])
    write_backend(tmp_path, post_processor=template)
    with pytest.raises(ModelError, match="2,000 tokens around every text"):
        Tokenizer.load(tmp_path)


def test_a_text_that_makes_the_library_panic_is_an_error_of_its_row(tmp_path: Path):
    from tokenizers import Regex

    write_backend(tmp_path, pre_tokenizer=pre_tokenizers.Split(Regex(r"(?:a|aa)+$"), "isolated"))
    own = Tokenizer.load(tmp_path)
    with pytest.raises(InvalidRequest, match="cannot split"):
        own.encode(["a" * 40 + "b"])
    assert own.encode(["ab"]) == [[0, 1]]


@pytest.mark.parametrize("content", [b"[" * 10**6, b'{"a":' * 10**5, b"null", b"7", b'"x"', b"\xff\xfe", b""])
@pytest.mark.parametrize("name", ["tokenizer.json", CONFIG, MAP, ADDED])
def test_files_that_are_no_objects(name: str, content: bytes, tmp_path: Path):
    write_tokenizer(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "directory"])
@pytest.mark.parametrize("name", ["tokenizer.json", CONFIG, MAP, ADDED])
def test_what_is_no_file(name: str, kind: str, tmp_path: Path):
    import os

    write_tokenizer(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir() if kind == "directory" else os.mkfifo(tmp_path / name)
    with pytest.raises(ModelError, match=name):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_file_with_odd_parts(tmp_path: Path):
    """Each part of tokenizer.json replaced by what it must not be: an error that names the file, nothing else."""
    write_tokenizer(tmp_path)
    good = json.loads((tmp_path / "tokenizer.json").read_text())
    odd = [7, True, "x", [], {}, [7], {"type": "x"}, {"type": "Sequence"}, -1, 2**70]
    for part in good:
        for value in odd:
            (tmp_path / "tokenizer.json").write_text(json.dumps(good | {part: value}))
            try:
                Tokenizer.load(tmp_path).encode(TEXTS)
            except ModelError as error:
                assert "tokenizer.json" in str(error)
    for id in (-1, 2**31, 2**32, 2**70, "1", None):
        token = good["added_tokens"][0] | {"id": id, "content": "<z>"}
        (tmp_path / "tokenizer.json").write_text(json.dumps(good | {"added_tokens": [*good["added_tokens"], token]}))
        try:
            Tokenizer.load(tmp_path).check_fits(300)
        except ModelError as error:
            assert "tokenizer" in str(error)

"""Whatever stands in the JSON files of a model directory: a spec or a ModelError that names the file, and no hang."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import key_cases
from tests.tiny_models import BASE, FAMILIES, make_model
from umbel.errors import ModelError
from umbel.ir.spec import ModelSpec
from umbel.models import known_keys
from umbel.models.architectures import FAMILIES as ROWS
from umbel.models.checkpoint import INDEX_FILE, SINGLE_FILE, stored_tensors
from umbel.models.families import read_spec

NAMES = ("config.json", "generation_config.json")
NUMBERS = (0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"))
scalars = (
    st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.sampled_from(["", "\ud800", "x" * 500, "gptq", "\x1b[2J"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
COMPRESSED = {
    "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32, "strategy": "group"}}
    },
}  # fmt: skip
KEYS = sorted(
    known_keys.OBEYED.union(*(row.obeyed for row in ROWS.values()), known_keys.REFUSED) - {"model_type"}
    | {"_attn_implementation", "no_such_key"}
)
GENERATION_KEYS = sorted({"eos_token_id", "no_such_key", "temperature", "repetition_penalty", "max_length"})


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all examples; each of them writes its own config.json."""
    return tmp_path_factory.mktemp("hostile")


def check(directory: Path, name: str) -> None:
    """A spec whose notes can be printed, or a ModelError that names the file and can be printed."""
    try:
        spec = read_spec(directory)
    except ModelError as error:
        text = str(error)
        assert name in text
    else:
        assert isinstance(spec, ModelSpec)
        text = "\n".join(spec.notes)
    text.encode("utf-8")
    assert "\x1b" not in text
    assert len(text) < 5000


def write(directory: Path, name: str, value: Any) -> None:
    (directory / name).write_text(json.dumps(value))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.dictionaries(st.sampled_from(KEYS), values, min_size=1, max_size=3))
def test_any_value_of_a_key(directory: Path, family: str, changed: dict[str, Any]):
    write(directory, "config.json", BASE | {"model_type": family} | FAMILIES[family] | changed)
    check(directory, "config.json")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([GPTQ, COMPRESSED, key_cases.LLAMA3, key_cases.LINEAR]), st.data())
def test_any_value_inside_an_object(directory: Path, stated: dict[str, Any], data: st.DataObject):
    key = (
        "quantization_config"
        if "quant_method" in stated
        else data.draw(st.sampled_from(["rope_scaling", "rope_parameters"]))
    )
    changed = json.loads(json.dumps(stated))
    inner = changed
    if "config_groups" in changed:
        group = changed["config_groups"]["group_0"]
        inner = data.draw(st.sampled_from([changed, group, group["weights"]]))
    inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(values)
    write(directory, "config.json", BASE | {"model_type": "llama"} | FAMILIES["llama"] | {key: changed})
    check(directory, "config.json")


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(GENERATION_KEYS), values, max_size=3))
def test_any_value_in_generation_config(tmp_path_factory: pytest.TempPathFactory, changed: dict[str, Any]):
    directory = tmp_path_factory.getbasetemp() / "generation"
    directory.mkdir(exist_ok=True)
    write(directory, "config.json", BASE | {"model_type": "llama"} | FAMILIES["llama"])
    write(directory, "generation_config.json", changed)
    check(directory, "config.json")


BYTES: dict[str, bytes] = {
    "nothing": b"",
    "a list": b"[]",
    "null": b"null",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "not UTF-8": b'{"a": "\xff"}',
    "NUL bytes": b"{}\0\0",
    "deep": b'{"a":' * 100_000,
    "deep lists": b"[" * 1_000_000,
    "deep and closed": b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "nested 65 levels deep": b'{"a":' + b"[" * 64 + b"]" * 64 + b"}",
    "long": b'{"a": "' + b" " * 5_000_000 + b'"}',
    "a huge number": b'{"a": ' + b"9" * 5000 + b"}",
    "a key with two values": b'{"vocab_size": 300, "vocab_size": 400}',
    "a key with two values inside": b'{"rope_scaling": {"factor": 2, "factor": 4.0}}',
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", BYTES)
def test_files_that_are_no_object(what: str, name: str, tmp_path: Path):
    make_model(tmp_path)
    (tmp_path / name).write_bytes(BYTES[what])
    with pytest.raises(ModelError, match=name):
        read_spec(tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", ["directory", "pipe", "device", "loop"])
def test_names_that_are_no_regular_file(what: str, name: str, tmp_path: Path):
    make_model(tmp_path)
    path = tmp_path / name
    path.unlink(missing_ok=True)
    if what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if what == "device" else path)
    with pytest.raises(ModelError, match=rf"{name}: .*(regular file|symbolic links)"):
        read_spec(tmp_path)


def test_headers_that_are_nested(tmp_path: Path):
    make_model(tmp_path)
    for depth in (70, 900):
        shape = b"[" * depth + b"]" * depth
        header = b'{"t":{"dtype":"F32","data_offsets":[0,0],"shape":' + shape + b"}}"
        (tmp_path / SINGLE_FILE).write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(ModelError, match=SINGLE_FILE):
            stored_tensors(tmp_path, read_spec(tmp_path))


def test_a_key_that_is_there_twice_may_say_the_same(tmp_path: Path):
    make_model(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('{"', '{"vocab_size": 300, "', 1))
    assert read_spec(tmp_path).vocab_size == 300


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([SINGLE_FILE, INDEX_FILE]),
    st.dictionaries(st.sampled_from(["a", "weight_map", "__metadata__"]), values),
)
def test_any_header_and_any_index(tmp_path_factory: pytest.TempPathFactory, name: str, value: dict[str, Any]):
    directory = tmp_path_factory.getbasetemp() / name
    directory.mkdir(exist_ok=True)
    write(directory, "config.json", BASE | {"model_type": "llama"} | FAMILIES["llama"])
    text = json.dumps(value).encode()
    (directory / name).write_bytes(text if name == INDEX_FILE else len(text).to_bytes(8, "little") + text)
    try:
        assert stored_tensors(directory, read_spec(directory)) == {}
    except ModelError as error:
        assert name in str(error)
        str(error).encode("utf-8")

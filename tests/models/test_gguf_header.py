"""Damaged GGUF files: each is refused by name, without memory for what it claims."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch

from tests.tiny_models import make_model
from umbel.errors import ModelError
from umbel.models.families import read_spec
from umbel.models.sources.gguf_header import read_gguf
from umbel.models.weights import load_weights

pytest.importorskip("gguf", reason="gguf is not installed here")
gguf_models = import_module("tests.gguf_models")  # behind the check, as it needs the package
Change = Callable[[bytearray], bytes]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("sound")
    return gguf_models.make_gguf(make_model(directory / "m"), directory / "m.gguf").read_bytes()


def put(at: int, form: str, value: int) -> Change:
    def change(data: bytearray) -> bytes:
        struct.pack_into("<" + form, data, at, value)
        return bytes(data)

    return change


def behind(name: bytes, distance: int, form: str, value: int) -> Change:
    """A number so many bytes behind the end of a name."""
    return lambda data: put(data.index(name) + len(name) + distance, form, value)(data)


def text(size: int, content: bytes = b"") -> bytes:
    return struct.pack("<Q", size) + content


def key(kind: int, rest: bytes, name: bytes = b"k") -> Change:
    """A file that is one key."""
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(len(name), name) + struct.pack("<I", kind)
    return lambda _: header + rest


ATTN_Q = b"blk.0.attn_q.weight"  # behind it: dimensions, two sizes, type, offset
CASES: dict[str, tuple[Change, str]] = {
    "empty": (lambda _: b"", "not fully downloaded"),
    "magic": (put(0, "I", 1), "it is no GGUF file"),
    "safetensors": (lambda _: (2).to_bytes(8, "little") + b"{}", "it is no GGUF file"),
    "version": (put(4, "I", 9), "version 9 of GGUF"),
    "first version": (put(4, "I", 1), "version 1 of GGUF"),
    "big endian": (put(4, "I", 3 << 24), "big-endian"),
    "tensors": (put(8, "Q", 2**60), "claims 1,152,921,504,606,846,976 tensors"),
    "tensors within limits": (put(8, "Q", 100_000), r"its header goes on|a string of|dimensions|string is not UTF-8"),
    "keys": (put(16, "Q", 2**40), "claims"),
    "key length": (put(24, "Q", 2**62), "a string of 4,611,686,018,427,387,904 bytes"),
    "key type": (key(77, b""), "'k' has the unknown type 77"),
    "array of arrays": (key(9, struct.pack("<IQ", 9, 5)), "'k' has the unknown type 9"),
    "array length": (key(9, struct.pack("<IQ", 4, 2**61)), "'k' has 2,305,843,009,213,693,952 items"),
    "array beyond the file": (key(9, struct.pack("<IQ", 4, 2**21)), "its header goes on to byte"),
    "strings beyond the file": (key(9, struct.pack("<IQ", 8, 2**21)), "its header goes on to byte"),
    "string in an array": (key(9, struct.pack("<IQ", 8, 1) + text(2**63)), "its header goes on to byte"),
    "not UTF-8": (key(8, text(2, b"\xff\xfe")), "a string is not UTF-8"),
    "not UTF-8 in an array": (key(9, struct.pack("<IQ", 8, 1) + text(1, b"\xff")), "a string is not UTF-8"),
    "alignment": (key(4, struct.pack("<I", 24), b"general.alignment"), "general.alignment=24: must be a power of two"),
    "dimensions": (behind(ATTN_Q, 0, "I", 2**31), "has 2147483648 dimensions"),
    "no dimension": (behind(ATTN_Q, 0, "I", 0), "has 0 dimensions"),
    "size": (behind(ATTN_Q, 4, "Q", 2**62), "cannot have the shape"),
    "block": (behind(ATTN_Q, 20, "I", 12), "Q4_K cannot have the shape"),
    "type": (behind(ATTN_Q, 20, "I", 999), "has the unknown type 999"),
    "offset": (behind(ATTN_Q, 24, "Q", 2**63), "ends at byte .* it was not fully downloaded"),
    "offset within a tensor": (behind(ATTN_Q, 24, "Q", 64), "overlaps the one before it"),
    "unaligned": (behind(ATTN_Q, 24, "Q", 2**30 + 1), "is not at a multiple of 32"),
    "twice": (lambda data: bytes(data).replace(b"blk.1.attn_q.weight", ATTN_Q), "has the tensor .* twice"),
    "key twice": (
        lambda data: bytes(data).replace(b"attention.key_length", b"attention.head_count"),
        "has the key .* twice",
    ),
    "half": (lambda data: bytes(data[: len(data) // 2]), "it was not fully downloaded"),
    "a hundred bytes": (lambda data: bytes(data[:100]), "its header goes on to byte"),
    "one byte less": (lambda data: bytes(data[:-1]), "it was not fully downloaded"),
}


@pytest.mark.parametrize("name", CASES)
def test_damage_is_named(name: str, sound: bytes, tmp_path: Path):
    change, message = CASES[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(change(bytearray(sound)))
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=message) as caught:
            read_gguf(path)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ")


def test_every_cut_is_refused(sound: bytes, tmp_path: Path):
    path = tmp_path / "m.gguf"
    for size in (*range(0, 400), *range(400, len(sound), len(sound) // 50)):
        path.write_bytes(sound[:size])
        with pytest.raises(ModelError):
            read_gguf(path)


def test_what_is_no_file_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "m.gguf")
    with pytest.raises(ModelError, match=r"m\.gguf: not a regular file"):
        read_gguf(tmp_path / "m.gguf")
    with pytest.raises(ModelError, match="No such file"):
        read_gguf(tmp_path / "other.gguf")


def test_the_reader_agrees_with_the_package(tmp_path: Path):
    path = gguf_models.make_gguf(make_model(tmp_path / "m", "qwen3_moe"), tmp_path / "m.gguf", "Q8_0")
    theirs, ours = gguf_models.gguf.GGUFReader(path), read_gguf(path)
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.metadata == fields
    assert {t.name: (t.tensor_type.name, t.data_offset, t.n_bytes) for t in theirs.tensors} == {
        name: (tensor.kind, tensor.offset, tensor.n_bytes) for name, tensor in ours.tensors.items()
    }


def test_absurd_sizes_are_refused_before_anything_is_allocated(tmp_path: Path):
    values = {"llama.embedding_length": 2**30, "llama.block_count": 1000}
    path = gguf_models.make_gguf(make_model(tmp_path / "m"), tmp_path / "m.gguf", **values)
    with pytest.raises(ModelError, match="hidden_size=1073741824"):
        load_weights(path, read_spec(path), torch.float32)

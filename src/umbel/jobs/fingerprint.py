"""What makes two runs the same job: the input's bytes, the model's files, and every setting that shapes an answer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import orjson

from umbel.errors import UsageError
from umbel.jobs.rows import ReadOptions

_WHOLE_BYTES = 64 * 2**20
_SAMPLES = 64
_SAMPLE_BYTES = 4_096
_MODEL_FILES = (".json", ".jinja", ".model", ".txt", ".safetensors")


def hash_file(path: Path) -> str:
    """SHA-256 of a whole file. Raises UsageError when it cannot be read."""
    digest = sha256()
    try:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    return digest.hexdigest()


def hash_model(directory: Path) -> dict[str, str]:
    """A short digest per file of a model directory that can change an answer (config, tokenizer, template, weights).

    Files of up to 64 MiB are hashed whole. Of larger weight files the size, the safetensors header and 64 blocks of
    4 KiB spread over the file are hashed: different training changes practically every block, and reading hundreds of
    gigabytes to start a job is not worth the rest. A single flipped bit in a large file is not noticed here.
    """
    return {
        p.name: hash_file(p)[:16] if p.stat().st_size <= _WHOLE_BYTES else _hash_sampled(p) for p in _files(directory)
    }


def stamp_model(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, size and time of change (ns) of the files that `hash_model` reads: equal before they are hashed and after
    they are loaded, they are the same files."""
    found = {p.name: p.stat() for p in _files(directory)}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


def _files(directory: Path) -> list[Path]:
    return sorted(p for p in directory.iterdir() if p.suffix in _MODEL_FILES and p.is_file())


def _hash_sampled(path: Path) -> str:
    size = path.stat().st_size
    digest = blake2b(str(size).encode(), digest_size=8)
    with open(path, "rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
        digest.update(stream.read(min(header, _WHOLE_BYTES)))
        for i in range(_SAMPLES):
            stream.seek(i * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def fingerprint(
    source: Path, options: ReadOptions, model: Mapping[str, str], engine: Mapping[str, Any], version: str
) -> dict[str, Any]:
    """The job's identity as flat, printable parts, so that a mismatch can be listed line by line.

    `model` comes from `hash_model`; `engine` holds the settings that change answers (dtype, seed, load format), not
    those that only change speed or memory, so that a job may be resumed with another chunk size or pool.
    """
    size = os.stat(source).st_size
    parts: dict[str, Any] = {"version": version, "input.sha256": hash_file(source), "input.bytes": size}
    parts |= {f"model.{name}": digest for name, digest in model.items()}
    parts |= {f"engine.{name}": value for name, value in engine.items()}
    parts |= {f"default.{name}": value for name, value in asdict(options.defaults).items()}
    parts |= {"read.template": options.template, "read.chat": options.chat, "read.strict": options.strict}
    parts["read.models"] = None if options.models is None else sorted(options.models)
    return dict(orjson.loads(orjson.dumps(parts)))  # tuples become lists, as they come back from the store


def job_key(parts: Mapping[str, Any]) -> str:
    """16 hex digits for ids in the output, of everything but the input: a row's bytes depend on that row only."""
    kept = {name: value for name, value in parts.items() if not name.startswith("input.")}
    return blake2b(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()

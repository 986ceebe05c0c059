"""Digests of files, and of all files of a model that decide what it answers."""

from __future__ import annotations

from hashlib import blake2b, sha256
from pathlib import Path

from umbel.errors import UsageError

_WHOLE_BYTES = 64 * 2**20
_SAMPLES = 64
_SAMPLE_BYTES = 4_096
_TEMPLATES = "additional_chat_templates"
_MODEL_FILES = (".json", ".jinja", ".model", ".txt", ".safetensors")


def hash_file(path: Path) -> str:
    """SHA-256 of a whole file. Raises UsageError when it cannot be read."""
    digest = sha256()
    try:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path}: {error.strerror or error}")


def hash_model(directory: Path) -> dict[str, str]:
    """A short digest per file of a model directory that can change an answer (config, tokenizer, template, weights), or
    of the one file that a model is.

    Files of up to 64 MiB are hashed whole. Of larger weight files the size, the header and 64 blocks of 4
    KiB spread over the file are hashed: different training changes practically every block, and reading hundreds of
    gigabytes to start a job would cost too much. A single flipped bit in a large file is not noticed here.
    """
    try:
        return {
            name: hash_file(path)[:16] if path.stat().st_size <= _WHOLE_BYTES else _hash_sampled(path)
            for name, path in _files(directory).items()
        }
    except OSError as error:
        raise _unreadable(directory, error) from error


def stamp_model(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, size and time of change (ns) of the files that `hash_model` reads. If they are equal before the files are
    hashed and after they are loaded, they are the same files."""
    found = {name: path.stat() for name, path in _files(directory).items()}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


def _files(directory: Path) -> dict[str, Path]:
    if not directory.is_dir():
        return {directory.suffix.removeprefix("."): directory}  # one file; what it is called does not count
    try:
        found = sorted((*directory.iterdir(), *(directory / _TEMPLATES).glob("*.jinja")))
    except OSError as error:
        raise _unreadable(directory, error) from error
    return {str(p.relative_to(directory)): p for p in found if p.suffix in _MODEL_FILES and p.is_file()}


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

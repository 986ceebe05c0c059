"""Writes the output file beside its place and renames it into place: JSON lines, gzip or Parquet."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, BinaryIO

import orjson

from umbel.errors import DiskFull
from umbel.jobs.failpoints import FailHook

_BLOCK_LINES = 1_024


def write_output(path: Path, lines: Iterable[bytes], at: FailHook) -> Path:
    """Write all lines to a temporary file beside `path`, down to the disk; returns it, ready for `place_output`.

    Raises DiskFull with the path and the bytes written; the temporary file is removed then.
    """
    part = path.with_name(f".{path.name}.part")
    written = 0
    try:
        at("output.open.before")
        with open(part, "wb") as stream:
            at("output.open.after")
            with _encoder(path, stream) as put:
                for block in _blocks(lines):
                    at("output.write.before")
                    put(block)
                    at("output.write.after")
                    written = stream.tell()
            stream.flush()
            at("output.fsync.before")
            os.fsync(stream.fileno())
            at("output.fsync.after")
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DiskFull(
            f"{path}: writing failed after {written:,} bytes ({error.strerror or error}); all results are safe beside "
            "it: free space, then run the same command again"
        ) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return part


def place_output(part: Path, path: Path, at: FailHook) -> None:
    """Rename the finished file into place and make the rename durable. Raises DiskFull."""
    try:
        at("output.rename.before")
        os.replace(part, path)
        at("output.rename.after")
        at("output.fsync_dir.before")
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        at("output.fsync_dir.after")
    except OSError as error:
        raise DiskFull(f"{path}: cannot be put into place ({error.strerror or error}); run again to retry") from error


def digest_file(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256") if hasattr(hashlib, "file_digest") else _sha256(stream)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _sha256(stream: BinaryIO) -> Any:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest


def _blocks(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    source = iter(lines)
    while block := list(islice(source, _BLOCK_LINES)):
        yield block


@contextmanager
def _encoder(path: Path, stream: IO[bytes]) -> Iterator[Any]:
    if path.suffix == ".parquet":
        with _parquet(stream) as put:
            yield put
    elif path.suffix == ".gz":
        with gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0, compresslevel=6) as packed:  # same bytes
            yield lambda block: packed.write(_joined(block))
    else:
        yield lambda block: stream.write(_joined(block))


def _joined(block: list[bytes]) -> bytes:
    return b"\n".join(block) + b"\n"


@contextmanager
def _parquet(stream: IO[bytes]) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    schema = _schema(pyarrow)
    with pyarrow.parquet.ParquetWriter(stream, schema, compression="zstd") as writer:

        def put(block: list[bytes]) -> None:
            writer.write_table(pyarrow.Table.from_pylist([_record(orjson.loads(line)) for line in block], schema))

        yield put


def _schema(pa: Any) -> Any:
    """Plain rows fill the columns up to `error`; OpenAI rows fill `custom_id`, `error`, `id` and `response` (JSON)."""
    ids, text = pa.list_(pa.int32()), pa.string()
    top = pa.list_(pa.struct([("token_id", pa.int32()), ("logprob", pa.float64())]))
    logprobs = pa.list_(pa.struct([("token_id", pa.int32()), ("logprob", pa.float64()), ("top", top)]))
    answer = [("text", text), ("token_ids", ids), ("finish_reason", text), ("logprobs", logprobs)]
    usage = pa.struct([("prompt_tokens", pa.int64()), ("completion_tokens", pa.int64())])
    error = pa.struct([("message", text), ("type", text), ("param", text), ("code", text)])
    choices = pa.list_(pa.struct([("index", pa.int32()), *answer]))
    head = [("custom_id", text), *answer, ("choices", choices), ("usage", usage), ("error", error)]
    return pa.schema([*head, ("id", text), ("response", text)])


def _record(item: dict[str, Any]) -> dict[str, Any]:
    if item.get("response") is not None:
        item["error"] = item["response"]["body"].get("error") or item["error"]
        item["response"] = orjson.dumps(item["response"]).decode()
    return item

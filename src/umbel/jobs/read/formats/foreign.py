"""Files that are not input: refused once, as a whole, with advice, instead of an error for each line."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from umbel.errors import InputError, UsageError
from umbel.jobs.read.formats.lines import BOM, open_bytes

_HEAD_BYTES = 65_536
_MAGIC: Mapping[bytes, str] = {
    b"BZh": "packed with bzip2; unpack it (bunzip2) or pack it with gzip",
    b"\xfd7zXZ\x00": "packed with xz; unpack it (unxz) or pack it with gzip",
    b"\x04\x22\x4d\x18": "packed with LZ4; unpack it (unlz4) or pack it with gzip",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it and give one file of it",
    b"PK\x03\x04": "a zip archive or an Excel file; unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel file; save the sheet as CSV",
    b"PAR1": "a Parquet file; give it a name that ends in .parquet",
    b"ARROW1": "an Arrow file; give it a name that ends in .arrow or .feather",
    b"ORC": "an ORC file; convert it to Parquet",
    b"Obj\x01": "an Avro file; convert it to Parquet",
    b"\x89HDF": "an HDF5 file; convert it to Parquet",
    b"SQLite format 3": "an SQLite database; export a table as CSV",
    b"%PDF-": "a PDF; give the prompts as JSON lines",
}
_WIDE = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_TEXT: Mapping[str, str] = {
    ".md": 'plain text; write each prompt as a JSON line, {"prompt": "..."}',
    ".yaml": "YAML; convert it to JSON lines",
    ".yml": "YAML; convert it to JSON lines",
    ".xml": "XML; convert it to JSON lines",
}
_SEVERAL_LINES = re.compile(rb'\{\s*\n\s*"')


def check_file(path: Path) -> None:
    """Raise UsageError for anything but a regular file that exists."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise UsageError(f"input {path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UsageError(f"input {str(path)!r}: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISREG(mode):
        return
    kinds = ((stat.S_ISDIR, "directory; give one file"), (stat.S_ISFIFO, "pipe; only umbel run, plan and sim read one"))
    kind = next((text for is_kind, text in kinds if is_kind(mode)), "device or a socket; give a file or a pipe")
    raise UsageError(f"input {path}: is a {kind}")


def refuse_foreign(path: Path, kind: str) -> None:
    """Raise InputError when a file that would be read as `kind` (a format of text) holds something else."""
    with open_bytes(path) as stream:
        head = stream.read(_HEAD_BYTES)
    suffix = Path(path.name.removesuffix(".gz").removesuffix(".zst")).suffix.lower()
    refuse_beginning(head, str(path), kind, suffix)


def refuse_beginning(head: bytes, name: str, kind: str, suffix: str = "") -> None:
    """`refuse_foreign` of an input that begins with `head`; `suffix` is the end of its name."""
    why = _foreign(head, kind, suffix)
    if why is not None:
        raise InputError(f"input {name}: is {why}; nothing was run")


def _foreign(head: bytes, kind: str, suffix: str) -> str | None:
    for magic, text in _MAGIC.items():
        if head.startswith(magic):
            return text
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it and give one file of it"
    if head.startswith(_WIDE) or _is_wide(head[:16]):
        return "not UTF-8 but UTF-16 or UTF-32; convert it with: iconv -f utf-16 -t utf-8"
    text = head.removeprefix(BOM).lstrip()
    if kind not in ("jsonl", "json") or not text:
        return None
    if text[:1] not in (b"{", b"["):
        return _TEXT.get(suffix)
    several = kind == "jsonl" and _SEVERAL_LINES.match(text)
    return "JSON over several lines; write one object a line: jq -c ." if several else None


def _is_wide(head: bytes) -> bool:
    """Whether text begins as ASCII does in UTF-16 or UTF-32: of its even and its odd places, one kind is all zero."""
    return len(head) > 1 and any(head[::2]) != any(head[1::2])

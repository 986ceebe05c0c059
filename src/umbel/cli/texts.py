"""Texts of a command line: decoded, with escapes where they are long texts, or read from a file."""

from __future__ import annotations

import argparse
import os
import re
from types import MappingProxyType

_ESCAPES = MappingProxyType({r"\n": "\n", r"\t": "\t", r"\\": "\\"})
MAX_BYTES = 16 * 2**20


def decoded(given: str) -> str:
    """An argument as UTF-8, also where the system's locale knows ASCII only and has passed its bytes through."""
    try:
        return os.fsencode(given).decode("utf-8")
    except UnicodeEncodeError:  # given by a program, not by the system
        return given
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"{given!r}: is not text in UTF-8") from None


def written(given: str) -> str:
    """A text with its escapes resolved: line ends, tabs and backslashes; other backslashes are left as they are.
    `@FILE` is the text of a file as it is, without the line end at its end; `@@` begins a text that begins with @."""
    if given.startswith("@") and not given.startswith("@@"):
        return _of_file(given[1:])
    text = decoded(given.removeprefix("@") if given.startswith("@@") else given)
    return re.sub(r"\\[nt\\]", lambda found: _ESCAPES[found[0]], text)


def _of_file(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise argparse.ArgumentTypeError(f"@{path}: has more than {MAX_BYTES:,} bytes")
        text = data.decode("utf-8-sig")
    except OSError as error:
        advice = "; write @@ for a text that begins with @" if isinstance(error, FileNotFoundError) else ""
        raise argparse.ArgumentTypeError(f"@{path}: {error.strerror or error}{advice}") from None
    except ValueError as error:  # also a name that no file can have
        raise argparse.ArgumentTypeError(f"@{path}: cannot be read as text in UTF-8 ({error})") from None
    return text.removesuffix("\n").removesuffix("\r")

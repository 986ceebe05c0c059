"""Writes pages of HTML where a user wants them."""

from __future__ import annotations

from pathlib import Path

from umbel.errors import UsageError


def write_page(path: Path, html: str) -> None:
    """Write a page to a file. Raises UsageError when that cannot be done."""
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--html {path}: cannot be written ({error.strerror or error})") from None

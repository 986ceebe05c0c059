"""Puts what a program has to say into a page, between its two marks."""

from __future__ import annotations

from pathlib import Path


def write(path: Path, marks: tuple[str, str], text: str) -> None:
    """Replace what stands between the marks of a page, which must have them; everything else stays."""
    before, _, rest = path.read_text(encoding="utf-8").partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not end:
        raise SystemExit(f"{path} has no place for this: {marks[0]} ... {marks[1]}")
    path.write_text(f"{before}{marks[0]}\n\n{text.strip()}\n\n{marks[1]}{after}", encoding="utf-8")

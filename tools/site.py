"""Builds the site of the documentation from README.md and docs/: python -m tools.site, into build/site.

The pages are those of the repository, and a link in them to another file of it (a source, an example) leads
to a copy of it. A page or heading that a link misses stops the build.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
STYLE = ROOT / "docs" / "site.css"
STAGE = ROOT / "build" / "site-pages"
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)|(?:src|srcset|href)=\"([^\"#:]+)\"")


def pages() -> list[Path]:
    """All pages: those at the root of the repository, and those of docs/."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def linked(page: Path) -> Iterator[Path]:
    """The files of the repository that a page links to; whether they exist is another question."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for match in LINK.finditer(text):
        target = match[1] or match[2]
        if "://" not in target and not target.startswith("mailto:"):
            yield (page.parent / target).resolve()


def stage(folder: Path = STAGE) -> None:
    """Lay out what the site is built from, with the same relative paths as in the repository."""
    shutil.rmtree(folder, ignore_errors=True)
    files = {file for page in pages() for file in linked(page) if file.is_file()} | {*pages(), STYLE}
    for file in sorted(files):
        copy = folder / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def build() -> int:
    """Stage the pages and build the site; returns the exit code of the builder."""
    stage()
    command = [
        sys.executable,
        "-m",
        "zensical",
        "build",
        "--strict",
        "--clean",
        "--config-file",
        str(ROOT / "zensical.toml"),
    ]
    return subprocess.run(command, check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(build())

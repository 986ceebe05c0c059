"""Command blocks of a page in Markdown, and running them in order: python tests/page_blocks.py PAGE, in a new folder.

A block begins with ```bash or ```python. Bash blocks stop at the first command that fails; Python blocks of a page
share names, and those with a >>> prompt are doctests. `pip install` does nothing: what is missing fails behind it. A
block that must not run says why in the line before it: <!-- no-run: it needs ... -->. What a block prints is held
against an ```output block behind it, where ... stands for anything.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

FENCE = re.compile(
    r"^(?: *<!-- no-run: (?P<reason>[^\n]*) -->\n)?"
    r"(?P<indent> *)(?P<marks>`{3,})(?P<language>[^\n`]*)\n(?P<text>.*?)^ *(?P=marks) *$",
    re.M | re.S,
)
NO_PIP = 'pip() { [ "$1" = install ]; }\n'
ALIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A fenced block: the line on which its text begins, its language, its text, why it is not run, what it prints."""

    line: int
    language: str
    text: str
    reason: str | None = None
    output: str | None = None

    @property
    def is_command(self) -> bool:
        """Whether it is there to be typed."""
        return self.language in ("bash", "python")

    @property
    def runs(self) -> bool:
        """Whether the test runs it."""
        return self.is_command and self.reason is None


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page, each with the output that the next one holds it to, if that is such a block."""
    found: list[Block] = []
    for match in FENCE.finditer(page):
        text = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.M)
        if match["language"] == "output" and found:
            found[-1] = replace(found[-1], output=text)
        else:
            line = page[: match.start("text")].count("\n") + 1
            found.append(Block(line, match["language"].strip(), text, match["reason"]))
    return found


def run(block: Block, names: dict[str, object]) -> str:
    """Run a block with the names of earlier Python blocks; returns what it printed, raises where it fails."""
    if block.language == "bash":
        shell = ["bash", "-euo", "pipefail", "-c", NO_PIP + block.text]
        done = subprocess.run(shell, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(f"exit code {done.returncode}\n{done.stdout}")
        return done.stdout
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if ">>> " in block.text:
            session = doctest.DocTestParser().get_doctest(block.text, names, f"line {block.line}", None, 0)
            if doctest.DocTestRunner(optionflags=ALIKE).run(session, clear_globs=False).failed:
                raise SystemExit(printed.getvalue())
            names.update(session.globs)
        else:
            exec(compile(block.text, f"block of line {block.line}", "exec"), names)
    return printed.getvalue()


def main(page: Path) -> None:
    """Run the blocks of a page; ends with a message at the first that fails or prints something else."""
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page.read_text(encoding="utf-8")):
        if not block.runs:
            continue
        where = f"{page.name}, line {block.line}"
        try:
            printed = run(block, names)
        except SystemExit as end:
            raise SystemExit(f"{where}: {end}") from None
        if block.output is not None and not doctest.OutputChecker().check_output(block.output, printed, ALIKE):
            raise SystemExit(f"{where}: printed\n{printed}\ninstead of\n{block.output}")
        print(f"ran {where}")


if __name__ == "__main__":
    sys.path[0] = ""  # as where the blocks were typed, not the folder of this file
    main(Path(sys.argv[1]))

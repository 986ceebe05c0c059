"""Every command of README.md and docs/ runs as it stands there, offline, and prints what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.source import ROOT
from tests.page_blocks import Block, blocks

PAGES = {str(p.relative_to(ROOT)): p for p in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])}
BLOCKS = {name: blocks(page.read_text(encoding="utf-8")) for name, page in PAGES.items()}
QUICK = {"docs/step.md"}
"""Pages that a plain pytest runs: those of others start models for many seconds, and CI runs them."""
LONG = {
    *("docs/files.md", "docs/recipes.md", "docs/coming_from.md", "docs/transformers.md", "docs/scores.md"),
    *("docs/reading_a_plan.md", "docs/more_machines.md", "docs/forms.md", "docs/chats.md", "docs/python.md"),
}
"""Pages that are for the night, as they take eight seconds to half a minute each."""
LANGUAGES = {"bash", "python", "text", "json", "toml", "yaml", ""}

WITH_COMMANDS = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.nightly if name in LONG else pytest.mark.slow)
    for name, found in BLOCKS.items()
    if any(block.runs for block in found)
]


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_the_commands_of_a_page_run_in_order(name: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    offline = {"HF_HUB_OFFLINE": "1", "UMBEL_CACHE": str(tmp_path / ".cache"), "PATH": path, "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "page_blocks.py"), str(PAGES[name])],
        check=False,
        capture_output=True,
        text=True,
        timeout=1200,
        cwd=tmp_path,
        env=os.environ | offline,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ran ") == sum(block.runs for block in BLOCKS[name])


@pytest.mark.parametrize("name", BLOCKS)
def test_a_command_that_is_not_run_says_why(name: str) -> None:
    for block in BLOCKS[name]:
        where = f"line {block.line}"
        assert block.language in LANGUAGES, f"{where}: {block.language!r} is not known to this test"
        assert block.is_command or not re.search(r"^ *(\$ |>>> |umbel \w+ \S+\.)", block.text, re.M), where
        assert block.reason is None or (block.is_command and len(block.reason.split()) > 2), where
        assert block.output is None or block.runs, f"{where}: nothing prints this output"


def test_commands_are_found() -> None:
    found = {name: sum(block.runs for block in of_page) for name, of_page in BLOCKS.items()}
    print({name: count for name, count in found.items() if count})
    assert found["README.md"] >= 2 and sum(found.values()) >= 40


PAGE = """# Page
```bash
echo one
```
```output
o...
```
1. In a list:

   <!-- no-run: it waits for a key -->
   ```python
   input()
   ```
````text
```bash
inside
```
````
"""


def test_blocks_are_read_as_they_stand() -> None:
    assert blocks(PAGE) == [
        Block(3, "bash", "echo one\n", None, "o...\n"),
        Block(12, "python", "input()\n", "it waits for a key"),
        Block(15, "text", "```bash\ninside\n```\n"),
    ]


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        ("```bash\nfalse\necho late\n```\n", "line 2: exit code 1"),
        ("```bash\necho one\n```\n```output\ntwo\n```\n", "printed\none"),
        ("```python\n>>> 1 + 1\n3\n\n```\n", "Got:"),
        ("```python\nx = 1\n```\n```python\nprint(x + y)\n```\n", "NameError"),
        ("```bash\nexit 3\n```\n", "exit code 3"),
    ],
)
def test_a_page_that_is_wrong_fails(page: str, wrong: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(page)
    command = [sys.executable, str(ROOT / "tests" / "page_blocks.py"), "page.md"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0 and wrong in done.stderr

"""Makes the pictures of README.md again: python -m tools.pictures, with tmux at hand. Look at them before a commit.

docs/plan.svg is the forest of the example job, cut out of the page that `umbel plan --html` writes. docs/killed.svg is
a real terminal: a job is killed with -9 when 56 % of its rows are done, goes on, and gives the bytes of a run that was
left alone.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
KILLED_AT = 0.56
COLUMNS, LINES = 92, 48
CHECK = "cmp answers.jsonl undisturbed.jsonl && echo the same bytes"
PROMPT = "$ "
SECONDS = 900.0  # that anything here may take on a busy machine


def plan_picture(folder: Path) -> str:
    """The first picture of the page of the example job's plan, with the page's colours, light and dark."""
    page = folder / "plan.html"
    job = [str(ROOT / "examples" / "tasks.jsonl"), "--model", "demo", "--html", str(page)]
    alone = {**os.environ, "UMBEL_CACHE": str(folder / ".plan-cache")}  # no history of this machine
    subprocess.run(["umbel", "plan", *job], check=True, stdout=subprocess.DEVNULL, env=alone)
    text = page.read_text(encoding="utf-8")
    style, picture = re.search(r"<style>(.*?)</style>", text, re.S), re.search(r"<svg.*?</svg>", text, re.S)
    if style is None or picture is None:
        raise SystemExit("the page of a plan has no picture")
    rules = style[1] + "\nsvg { min-width: 0; background: var(--card); }\n"
    return (
        picture[0]
        .replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        .replace(">", f">\n<style>{rules}</style>", 1)
    )


def write_job(path: Path) -> None:
    """Stories about every name with every thing of examples/seeds.csv."""
    with (ROOT / "examples" / "seeds.csv").open(encoding="utf-8") as file:
        seeds = list(csv.DictReader(file))
    prompts = [f"One day, {a['name']} found a {b['adjective']} {b['object']} in the" for a in seeds for b in seeds]
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))


class Terminal:
    """A terminal of tmux, in a folder, in which commands are typed."""

    def __init__(self, folder: Path):
        self.name = f"umbel-picture-{os.getpid()}"
        shell = f"env PS1='{PROMPT}' UMBEL_CACHE={folder}/.cache bash --norc --noprofile"
        size = ["-x", str(COLUMNS), "-y", str(LINES)]
        subprocess.run(["tmux", "new-session", "-d", "-s", self.name, *size, "-c", str(folder), shell], check=True)

    def type(self, line: str) -> None:
        """Type a line and the return key."""
        subprocess.run(["tmux", "send-keys", "-t", self.name, "-l", line], check=True)
        subprocess.run(["tmux", "send-keys", "-t", self.name, "Enter"], check=True)

    def screen(self) -> str:
        """What the terminal shows, with its colours."""
        command = ["tmux", "capture-pane", "-p", "-e", "-t", self.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def wait(self, n: int) -> None:
        """Until the shell has asked for its n-th command."""
        until(lambda: len(re.findall(rf"^{re.escape(PROMPT.rstrip())}", self.screen(), re.M)) >= n)

    def children(self) -> list[int]:
        """The processes that the shell has started."""
        command = ["tmux", "display-message", "-p", "-t", self.name, "#{pane_pid}"]
        shell = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        found = Path(f"/proc/{shell}/task/{shell}/children").read_text()
        return [int(pid) for pid in found.split()]

    def close(self) -> None:
        """End the terminal."""
        subprocess.run(["tmux", "kill-session", "-t", self.name], check=False)


def until(true: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + SECONDS
    while not true():
        if time.monotonic() > end:
            raise SystemExit("it took too long")
        time.sleep(0.02)


def share_shown(screen: str) -> float:
    """The share of rows that the progress line on a screen says are done; 0 where there is none."""
    found = re.findall(r"([\d,]+)/([\d,]+) rows", re.sub("\x1b\\[[\\d;]*m", "", screen))
    done, rows = (int(number.replace(",", "")) for number in found[-1]) if found else (0, 1)
    return done / rows


def killed_picture(folder: Path) -> str:
    """The terminal in which a job is killed and goes on."""
    write_job(folder / "stories.jsonl")
    run = "umbel run stories.jsonl -o {} --model demo --max-tokens 80 --kv-tokens 3000"
    subprocess.run([*run.format("undisturbed.jsonl").split(), "--quiet"], check=True, cwd=folder)
    terminal = Terminal(folder)
    try:
        terminal.wait(1)
        terminal.type(run.format("answers.jsonl"))
        until(lambda: share_shown(terminal.screen()) >= KILLED_AT)
        for pid in terminal.children():
            os.kill(pid, signal.SIGKILL)
        terminal.wait(2)
        for n, line in enumerate((run.format("answers.jsonl"), CHECK), start=3):
            terminal.type(line)
            terminal.wait(n)
        return drawn(terminal.screen())
    finally:
        terminal.close()


def drawn(screen: str) -> str:
    """A screen as SVG, without the empty prompt at its end."""
    lines = screen.rstrip("\n").removesuffix(PROMPT.rstrip()).rstrip("\n")
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(lines))
    picture = console.export_svg(title="kill -9, and go on", theme=MONOKAI)
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.S)  # nothing is loaded from elsewhere


def main() -> None:
    """Write both pictures."""
    if shutil.which("tmux") is None or shutil.which("umbel") is None:
        raise SystemExit("needs tmux, and umbel on the path")
    with tempfile.TemporaryDirectory() as folder:
        (DOCS / "plan.svg").write_text(plan_picture(Path(folder)), encoding="utf-8")
        (DOCS / "killed.svg").write_text(killed_picture(Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

"""Completion: what shells offer is what commands take."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from umbel.cli.completion import options_of
from umbel.cli.main import COMMANDS, main


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("umbel pl", {"plan"}),
        ("umbel help ver", {"verify"}),
        ("umbel run --stop-t", {"--stop-token-id", "--stop-token-ids"}),
        ("umbel run x.jsonl --order ", {"input", "finish"}),
        ("umbel plan x.jsonl --dtype b", {"bfloat16"}),
        ("umbel clean --ord", set()),
        ("umbel completion z", {"zsh"}),
    ],
)
def test_bash_offers_what_is_taken(typed: str, offered: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [*typed.split(), ""] if typed.endswith(" ") else typed.split()
    asked = f"COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}; _umbel"
    code = f'{script("bash", capsys)}\n{asked}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-uc", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_every_option_is_in_the_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, found = script(shell, capsys), options_of()
    assert found.keys() == COMMANDS.keys() and any(option.values for option in found["run"])
    for command, options in found.items():
        part = text.split(f"    {command})")[1].split(";;")[0] if shell == "zsh" else text
        for name in (name for option in options for name in option.names):
            as_fish = f" -l {name[2:]} " if name.startswith("--") else f" {name[1:]} "
            assert (f"'*{name}[" if shell == "zsh" else as_fish) in part, name
    if shutil.which(shell):
        subprocess.run([shell, "-n", "-c", text], check=True)


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "bash, zsh, fish" in capsys.readouterr().err


def test_help_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "run"]) == 0
    told = capsys.readouterr().out
    assert main(["run", "--help"]) == 0
    assert told == capsys.readouterr().out and "e.g. --deadline 2h" in told
    assert main(["help", "rnu"]) == 2
    assert "did you mean 'run'" in capsys.readouterr().err

"""docs/troubleshooting.md has every code that a row's error can have, and every exit code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.house.source import ROOT, modules
from umbel import errors

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MAKERS = {"InvalidRequest", "RowError", "refuse"}
"""What makes an error of a row; its first argument is the code."""
CODE = re.compile(r"[a-z]+(_[a-z]+)+")


def codes() -> set[str]:
    """Every code of a row in the source: texts that stand as the first argument of what makes a row's error."""
    return codes_made(MAKERS, 0, serving=False)


def codes_made(makers: set[str], place: int, *, serving: bool) -> set[str]:
    """The texts in one argument of calls, in what serves requests or in all else."""
    found = set[str]()
    for name, module in modules().items():
        for node in ast.walk(module.tree) if name.startswith("umbel.serve") == serving else ():
            if isinstance(node, ast.Call) and len(node.args) > place and _name(node.func) in makers:
                found |= set(_texts(node.args[place]))
    return found


def _name(function: ast.expr) -> str:
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )


def _texts(argument: ast.expr) -> Iterator[str]:
    """The codes in an argument, which may choose between two."""
    for node in ast.walk(argument):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
            yield node.value


def test_every_code_of_a_row_stands_in_the_table() -> None:
    table = PAGE.split("## Errors of rows")[1].split("\n## ")[0]
    listed = {code for row in re.findall(r"^\| (`.*?) \|", table, re.M) for code in re.findall(r"`(\w+)`", row)}
    assert len(codes()) > 25
    assert listed == codes()


def test_every_code_of_a_request_stands_in_the_page_about_the_server() -> None:
    listed = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")))
    made = codes_made({"ApiError"}, 1, serving=True) | codes_made(MAKERS, 0, serving=True)
    assert len(made) > 15 and not made - listed


def test_every_exit_code_stands_in_the_table() -> None:
    table = PAGE.split("## Exit codes")[1].split("\n## ")[0]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.M)}
    raised = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    assert listed == raised | {0, 3, 5, 75, 130}
    assert listed == {int(code) for code in re.findall(r"(\d+) ", README_CODES)} - {143, 129, 141}


README_CODES = (ROOT / "README.md").read_text(encoding="utf-8").split("Exit codes: ")[1].split("## ")[0]

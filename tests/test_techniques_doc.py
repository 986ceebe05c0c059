"""The example of docs/techniques.md is the package that the tests install."""

from __future__ import annotations

import ast
import re

from tests.house.source import ROOT
from tests.packages import ROWS, TOYS

PAGE = (ROOT / "docs" / "techniques.md").read_text(encoding="utf-8")


def test_the_example_is_what_the_tests_install() -> None:
    shown = re.search(r"```python\n(.*?)```", PAGE, re.S)
    assert shown is not None
    given = ast.parse((TOYS / "few_admission.py").read_text(encoding="utf-8"))
    given.body = [
        node for node in given.body[1:] if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
    ]
    assert ast.dump(ast.parse(shown[1])) == ast.dump(given)
    assert ROWS.items() >= dict(re.findall(r'^"([\w.]+)" = "([\w:]+)"$', PAGE, re.M)).items()

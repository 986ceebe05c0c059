"""One class name, one class: a name that is read in a docstring or a message leads to one place."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.house.source import modules


def test_class_names_are_unique() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for name, module in modules().items():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(name)
    twins = {name: where for name, where in found.items() if len(where) > 1}
    assert not twins, f"classes of one name: {twins}"

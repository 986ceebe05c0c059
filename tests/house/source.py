"""The package as syntax trees: modules, their imports (lazy and type-only ones too) and their functions."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"


@dataclass(frozen=True)
class Module:
    """One file: its dotted name, syntax tree and text."""

    name: str
    path: Path
    tree: ast.Module
    text: str

    @property
    def unit(self) -> str:
        """The part of the house it belongs to: `plan` for umbel.plan.planner, `api` for umbel.api, '' for umbel."""
        return [*self.name.split("."), ""][1]

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())


@cache
def modules() -> dict[str, Module]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found[name] = Module(name, path, ast.parse(text), text)
    return found


def of_each_module(rule: Callable[[Module], None]) -> Callable[[], None]:
    """One test of a rule that every module keeps, which names all that break it: thousands of tests that take no time
    would take a minute to collect and count."""

    @wraps(rule)
    def test() -> None:
        broken = {}
        for name, module in modules().items():
            try:
                rule(module)
            except AssertionError as error:
                broken[name] = str(error) or "it is broken here"
        assert not broken, "\n".join(f"{name}: {why}" for name, why in broken.items())

    del test.__wrapped__  # type: ignore[attr-defined]  # pytest reads the signature of what is wrapped
    return test


@cache
def imports() -> dict[str, dict[str, int]]:
    """Per module: what it imports anywhere in the file (a module of ours where there is one), and on which line."""
    return {name: dict(_imports(module)) for name, module in modules().items()}


def _imports(module: Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield (inner if inner in modules() else base), node.lineno


def _base(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.name.split(".")
    if module.path.name != "__init__.py":
        package = package[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, nested ones included."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function below its signature and docstring."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0

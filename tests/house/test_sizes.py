"""Sizes and prose: short files, short functions, a sentence on top of each module, docstrings on what is public."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.house.source import ROOT, Module, body_lines, functions, modules, of_each_module

FILE_LINES = 300
KERNEL_LINES = 400
FUNCTION_LINES = 40
P95_LINES = 30


@of_each_module
def test_files_are_short(module: Module) -> None:
    limit = KERNEL_LINES if module.unit == "kernels" else FILE_LINES
    assert module.lines <= limit, f"{module.path.name} has {module.lines} lines"


NATIVE = ROOT / "src" / "umbel" / "kernels" / "native"
# Attention is one kernel each: tiles, softmax and merging share their layout in registers and are read as a whole.
LONGER = {"attend.inc": 460, "attend_bf16.inc": 680}


def test_compiled_sources_are_short() -> None:
    sizes = {p.name: len(p.read_text().splitlines()) for p in NATIVE.iterdir() if p.suffix in (".cpp", ".h", ".inc")}
    assert sizes and LONGER.keys() <= sizes.keys()
    long = {name: lines for name, lines in sizes.items() if lines > LONGER.get(name, KERNEL_LINES)}
    assert not long, f"over {KERNEL_LINES} lines: {long}"
    assert all(sizes[name] > KERNEL_LINES for name in LONGER), "no exception is needed any more"


@of_each_module
def test_functions_are_short(module: Module) -> None:
    long = {f.name: body_lines(f) for f in functions(module) if body_lines(f) > FUNCTION_LINES}
    assert not long, f"bodies over {FUNCTION_LINES} lines: {long}"


def test_most_functions_are_very_short() -> None:
    sizes = sorted(body_lines(f) for m in modules().values() for f in functions(m))
    assert sizes[len(sizes) * 95 // 100] <= P95_LINES


@of_each_module
def test_modules_open_with_a_sentence(module: Module) -> None:
    doc = ast.get_docstring(module.tree)
    assert doc and doc.split("\n\n")[0].rstrip().endswith((".", ":")), "the first sentence says what the module is for"


@of_each_module
def test_public_things_have_docstrings(module: Module) -> None:
    bare = [name for name, node in public(module.tree, "") if ast.get_docstring(node) is None]
    assert not bare


def public(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Functions, classes and methods without a leading underscore; a protocol's class explains its bare methods."""
    for child in node.body:
        named = isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_")
        if named and ast.unparse(child.body[-1]) != "...":
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{prefix}{child.name}.")


@of_each_module
def test_names_say_something(module: Module) -> None:
    assert not {"utils", "util", "common", "helper", "helpers", "misc"} & set(module.name.split("."))

"""No hidden state, and no way to run what a file brings: no globals, no module state, no pickle, no eval."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.house.source import Module, imports, of_each_module

UNSAFE_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
UNSAFE_METHODS = {("torch", "load"), ("yaml", "load")}
MUTABLE_CALLS = {"list", "dict", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque", "local"}
READ_ONLY = ("Mapping", "Sequence", "Set", "tuple", "Final[Mapping", "Final[Sequence")
CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")
CHANGES = {"append", "add", "update", "pop", "popitem", "setdefault", "clear", "extend", "insert", "remove", "discard"}
MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)


@of_each_module
def test_no_globals(module: Module) -> None:
    assert not [node.lineno for node in ast.walk(module.tree) if isinstance(node, ast.Global)]


@of_each_module
def test_no_mutable_module_state(module: Module) -> None:
    classes = [node.body for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
    found = [pair for body in (module.tree.body, *classes) for pair in mutable(body)]
    excused = [i for i, line in enumerate(module.text.splitlines(), 1) if "noqa: RUF012" in line]  # with its reason
    wrong = {name: line for name, line in found if not CONSTANT.fullmatch(name) and line not in excused}
    assert not wrong, f"{wrong}: use a tuple or a frozenset, say Mapping or Sequence, or name it as a constant"
    changed = {name: line for name, line in changes(module.tree) if CONSTANT.fullmatch(name)}
    assert not changed, f"{changed}: a constant is changed"


def changes(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Names whose items are stored, deleted, or changed by one of the usual methods, and where."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load) and isinstance(node.value, ast.Name):
            yield node.value.id, node.lineno
        if isinstance(node, ast.Attribute) and node.attr in CHANGES and isinstance(node.value, ast.Name):
            yield node.value.id, node.lineno


def mutable(body: list[ast.stmt]) -> Iterator[tuple[str, int]]:
    """Names of the module or class that are bound to a mutable value, and where."""
    for node in body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if not isinstance(node, ast.Assign | ast.AnnAssign) or value is None or _is_read_only(node):
            continue
        called = value.func if isinstance(value, ast.Call) else None
        name = getattr(called, "id", getattr(called, "attr", None))
        if isinstance(value, MUTABLE) or name in MUTABLE_CALLS:
            yield ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target), node.lineno


def _is_read_only(node: ast.stmt) -> bool:
    if isinstance(node, ast.AnnAssign):
        return ast.unparse(node.annotation).startswith(READ_ONLY)
    return isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] in (["__all__"], ["__slots__"])


@of_each_module
def test_nothing_unsafe(module: Module) -> None:
    assert not [target for target in imports()[module.name] if target.split(".")[0] in UNSAFE_MODULES]
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        assert not (isinstance(called, ast.Name) and called.id in UNSAFE_CALLS), f"line {node.lineno}: {called.id}()"
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            pair = (called.value.id, called.attr)
            assert pair not in UNSAFE_METHODS, f"line {node.lineno}: {'.'.join(pair)}()"
        assert not [k for k in node.keywords if k.arg in ("shell", "trust_remote_code") and _is_true(k.value)]


def _is_true(value: ast.expr) -> bool:
    return not (isinstance(value, ast.Constant) and value.value is False)

"""Docstrings and comments that a stranger reads once: whole phrases that stand by themselves, in the field's words."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

import pytest

from tests.house.source import ROOT, Module, of_each_module

FRAGMENT = re.compile(r"(Of|That of|Those of|As an?) [^,:]*[.:]|See [\w.`/]+[.;]|Nobody|Nothing\.|None\.")
"""What a docstring must not begin with: it would only parse after its owner, or send the reader elsewhere."""
WORDS = re.compile(
    r"\b(nobody|whoever|anew|afresh|foret(ell|old|ells|elling)|dearer|dearest|of no account|by heart|for ever"
    r"|(is|are|was|were|be|been|being) told(?! apart)|hears|came to be|comes? to be)\b",
    re.I,
)
"""Words that say something plainer in a roundabout way: no, the caller, again, predict, costlier, recorded, learns."""


def documented(module: Module) -> Iterator[tuple[ast.ClassDef | ast.FunctionDef, str]]:
    """Classes and functions with their docstrings."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield node, text


def texts(module: Module) -> Iterator[tuple[int, str]]:
    """Docstrings and comments, with their lines."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.strip("# ")


def roundabout(module: Module) -> dict[int, str]:
    """Such words of docstrings and comments, by line. Most files have none anywhere, and are not taken apart."""
    if not WORDS.search(module.text):
        return {}
    return {line: m.group() for line, text in texts(module) if (m := WORDS.search(text))}


TESTS = sorted((ROOT / "tests").rglob("*.py"))


@of_each_module
def test_words_are_plain(module: Module) -> None:
    assert not roundabout(module)


def test_words_are_found_in_docstrings_and_comments_only() -> None:
    text = '"""One that hears."""\nsaid = "anew"  # done afresh\n'
    assert roundabout(Module("m", ROOT, ast.parse(text), text)) == {1: "hears", 2: "afresh"}


def test_tests_read_like_the_rest() -> None:
    found = {}
    for path in TESTS:
        text = path.read_text(encoding="utf-8")
        module = Module(str(path.relative_to(ROOT)), path, ast.parse(text), text)
        if path.parent.name != "house":
            found |= {(module.name, line): said for line, said in roundabout(module).items()}
            found |= {(module.name, n.lineno): said for n, said in documented(module) if FRAGMENT.match(said)}
    assert not found


@of_each_module
def test_docstrings_stand_by_themselves(module: Module) -> None:
    found = {n.lineno: text for n, text in documented(module) if FRAGMENT.match(text)}
    assert not found


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("Of nothing.", True),
        ("That of a common model: heads of 128.", True),
        ("As a curve.", True),
        ("See Linear; `is_gated`: a gate.", True),
        ("See KVStore.", True),
        ("Nobody listens.", True),
        ("Of several walks, the one that the clock finds fastest.", False),
        ("See how far a run is.", False),
        ("The curve of no answers.", False),
    ],
)
def test_fragments_are_recognised(text: str, is_one: bool) -> None:
    assert bool(FRAGMENT.match(text)) == is_one

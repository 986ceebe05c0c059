"""Writes docs/python.md from signatures and docstrings of what `umbel` exports: `python -m tests.python_doc`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import umbel

DOC = Path(__file__).parents[1] / "docs" / "python.md"
HEAD = """# Python

All public names of `umbel`, with their signatures and what they promise. Names and shapes are vLLM's where vLLM has
them; [coming from vLLM](coming_from.md#vllm) says what differs.

```python
from umbel import LLM, SamplingParams

with LLM("demo") as llm:
    [answer] = llm.generate(["The capital of France is"], SamplingParams(temperature=0, max_tokens=8))
    print(answer.outputs[0].text)
    print(llm.plan(["one prompt", "one prompt more"]))
```

Whole files and tables are durable jobs, as with `umbel run`: after a crash or a stop the same call goes on.

```python
import umbel

summary = umbel.run(
    "examples/seeds.csv", "stories.jsonl", model="demo", prompt="Tell of {name}.", max_tokens=9, quiet=True
)
rows = umbel.map([{"name": "a fox"}], "Tell of {name}.", model="demo", max_tokens=9, quiet=True)
print(summary, rows[0]["text"], sep="\\n")
```

Prompts that come while others run: [sessions](sessions.md). Log-probabilities and labels: [scores](scores.md). Errors
that are raised derive from `umbel.errors.UmbelError`; what is wrong with one row is the `error` of its answer instead,
with a `code` of [this list](troubleshooting.md#errors-of-rows) and a `message`.

This page is written by `python -m tests.python_doc`.
"""
INNER = {"LLM": {"execute", "execute_all", "plan_for"}}
"""Methods that callers of `umbel` do not need: they take records of the engine's inside."""


def document() -> str:
    """The whole page."""
    return HEAD + "".join(_entry(name, getattr(umbel, name)) for name in umbel.__all__)


def _entry(name: str, thing: object) -> str:
    text = f"\n## {name}\n\n{_signature(name, thing)}\n\n{inspect.getdoc(thing) or ''}\n"
    return text + "".join(_method(name, *one) for one in methods(thing) if one[0] not in INNER.get(name, ()))


def methods(thing: object) -> Iterator[tuple[str, object]]:
    """The public methods of a class that are called on its objects, each once, in the order of the source."""
    owners = reversed(thing.__mro__) if inspect.isclass(thing) else ()
    names = {name: None for owner in owners for name, value in vars(owner).items() if inspect.isfunction(value)}
    for name in names:
        if not name.startswith("_"):
            yield name, getattr(thing, name)


def _method(owner: str, name: str, method: object) -> str:
    return f"\n### {owner}.{name}\n\n{_signature(name, method)}\n\n{inspect.getdoc(method) or ''}\n"


def _signature(name: str, thing: object) -> str:
    """The call with its parameters and types, one on a line where they are many."""
    if not callable(thing):
        return ""
    signature = inspect.signature(thing)
    shown = [_shown(one) for one in signature.parameters.values() if one.name not in ("self", "unknown")]
    keyword = [i for i, one in enumerate(signature.parameters.values()) if one.kind is one.KEYWORD_ONLY]
    if keyword and keyword[0] > 0:
        shown.insert(keyword[0] - ("self" in signature.parameters), "*")
    line = f"{name}({', '.join(shown)})"
    if len(line) > 100:
        line = f"{name}(\n" + "".join(f"    {one},\n" for one in shown) + ")"
    returned = signature.return_annotation
    back = "" if returned in (inspect.Signature.empty, None, "None") else f" -> {str(returned).strip(chr(39))}"
    return f"```text\n{line}{back}\n```"


def _shown(parameter: inspect.Parameter) -> str:
    return re.sub(r": '([^']*)'", r": \1", str(parameter))


if __name__ == "__main__":
    DOC.write_text(document(), encoding="utf-8")

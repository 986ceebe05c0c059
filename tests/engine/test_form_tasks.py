"""Real schemas, and the tools of a benchmark: each is refused with a reason, or every answer that ends is valid by an
independent validator."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from umbel.api import LLM
from umbel.errors import InvalidRequest
from umbel.ir.params import SamplingParams
from umbel.ir.structured import StructuredOutputsParams
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.records import ReadNotes, ReadOptions
from umbel.text.answers.formats import AnswerReader

pytest.importorskip("llguidance", reason="llguidance is not installed here")
jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed here")
TASKS = Path(__file__).parents[3] / "shared" / "data" / "tasks"
LONGEST = 250  # tokens of an answer
TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None, "HashMap": "object"}


def task(name: str) -> list[dict[str, Any]]:
    file = TASKS / f"{name}.jsonl.gz"
    if not file.exists():
        pytest.skip(f"there is no {file.name} here")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def demo() -> LLM:
    return LLM("demo", dtype="float32", device="cpu")


def params_of(demo: LLM, form: StructuredOutputsParams) -> SamplingParams:
    """An answer, which is kept from going on and on, as small models do: what ends texts and lists is more likely,
    and what was said often less."""
    marks = [demo.tokenizer.encode([mark], add_special_tokens=False)[0][0] for mark in ('"', "}", "]")]
    end = {"logit_bias": dict.fromkeys(marks, 5.0), "frequency_penalty": 0.4}
    return SamplingParams(temperature=0.8, seed=1, max_tokens=LONGEST, structured_outputs=form, **end)


def is_valid(schema: Any, value: Any) -> bool:
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    return bool(kind(schema, format_checker=kind.FORMAT_CHECKER).is_valid(value))


def answers(demo: LLM, asked: list[tuple[Any, StructuredOutputsParams]]) -> Iterator[tuple[Any, str, bool]]:
    """Texts of answers with what they are held to, and whether they are whole."""
    outputs = demo.generate(["Answer: "] * len(asked), [params_of(demo, form) for _, form in asked])
    for (held, _), output in zip(asked, outputs, strict=True):
        assert output.error is None or output.error.code in ("grammar_failed", "invalid_grammar"), output.error
        for one in output.outputs if output.error is None else ():
            yield held, one.text, one.finish_reason == "stop"


@pytest.mark.nightly
def test_answers_are_valid_by_their_schemas(demo: LLM) -> None:
    rows, asked, refused = task("jsonschema_masks"), [], list[str]()
    for row in rows:
        try:
            form = StructuredOutputsParams(json=row["schema"], disable_any_whitespace=True)
        except InvalidRequest as error:
            assert error.code == "invalid_grammar" and len(error.message) > 30
            refused.append(error.message)
            continue
        asked.append((row["schema"], form))
    said = list(answers(demo, asked))
    whole = [(schema, text) for schema, text, ended in said if ended]
    wrong = [text for schema, text in whole if not is_valid(schema, json.loads(text))]
    print(f"\n{len(rows)} schemas, {len(refused)} refused, {len(whole)} of {len(said)} answers whole")
    assert not wrong and len(asked) > 0.85 * len(rows) and len(whole) > 0.2 * len(said)


def plain(schema: Any) -> Any:
    """A schema of the benchmark with the types of JSON Schema."""
    if isinstance(schema, list):
        return [plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: plain(value) for name, value in schema.items()}
    if isinstance(kind := found.get("type"), str) and kind in TYPES:
        found |= {"type": TYPES[kind]}
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["bfcl_simple", "bfcl_multiple"])
@pytest.mark.parametrize("choice", ["required", "named"])
def test_calls_are_valid_by_their_tools(demo: LLM, name: str, choice: str) -> None:
    asked, refused = [], list[str]()
    rows = task(name)
    for row in rows:
        tools = [{"type": "function", "function": plain(one)} for one in row["functions"]]
        own = {"type": "function", "function": {"name": tools[0]["function"]["name"]}}
        body = {"messages": row["messages"], "tools": tools, "tool_choice": own if choice == "named" else choice}
        line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
        found = RowParser(ReadOptions(), ReadNotes(), "/v1/chat/completions").parse(0, 1, line)
        if found.request is None:
            assert found.error is not None and found.error.code == "invalid_grammar"
            refused.append(found.error.message)
            continue
        form = found.request.params.structured_outputs
        assert form is not None
        asked.append(({tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}, form))
    said = list(answers(demo, asked))
    whole = [(schemas, text) for schemas, text, ended in said if ended]
    for schemas, text in whole:
        calls = AnswerReader().read(text, must_call=True).calls
        assert calls and (choice == "required" or [call.name for call in calls] == list(schemas)[:1])
        assert all(is_valid(schemas[call.name], json.loads(call.arguments)) for call in calls), text
    print(f"\n{name}, {choice}: {len(rows)} rows, {len(refused)} refused, {len(whole)} of {len(said)} answers whole")
    assert len(asked) > 0.9 * len(rows) and len(whole) > 0.2 * len(said)

"""simonw's `llm` with Umbel's models: in its own process, and by a server; found by the entry point of the package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

simonw = pytest.importorskip("llm", reason="llm (umbel[llm]) is not installed")

from click.testing import CliRunner  # noqa: E402
from llm.cli import cli  # noqa: E402

from tests.serve.conftest import listening  # noqa: E402
from umbel.api import LLM  # noqa: E402
from umbel.clients.llm_models import LocalModel, ServedModel  # noqa: E402
from umbel.ir.params import SamplingParams  # noqa: E402

ROOT = Path(__file__).parents[2]
HOW = {"temperature": 0, "max_tokens": 6}
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    monkeypatch.delenv("UMBEL_API_KEY", raising=False)


@pytest.fixture(scope="module")
def local(directory: Path) -> Iterator[LocalModel]:
    model = LocalModel()
    yield model
    for engine in model._loaded.values():
        engine.close()


@pytest.fixture
def served(url: str, monkeypatch: pytest.MonkeyPatch) -> ServedModel:
    monkeypatch.setenv("UMBEL_SERVER", url)
    return ServedModel()


def expected(engine: LLM, *texts: str) -> str:
    """The answer to a conversation of these texts, by turns the user's and the model's."""
    said = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    (output,) = engine.chat([said], SamplingParams(**HOW), use_tqdm=False)
    return output.outputs[0].text


@pytest.mark.parametrize("stream", [True, False])
def test_answers_in_the_process_are_those_of_chat(local: LocalModel, llm: LLM, directory: Path, stream: bool) -> None:
    response = local.prompt("one two", stream=stream, model=str(directory), **HOW)
    pieces = list(response)
    assert "".join(pieces) == expected(llm, "one two") and len(pieces) > stream
    assert response.usage().output == 6 and response.usage().input > 2


def test_a_conversation_goes_on(local: LocalModel, llm: LLM, directory: Path) -> None:
    chat = local.conversation()
    first = chat.prompt("one two", model=str(directory), **HOW).text()
    assert chat.prompt("three", model=str(directory), **HOW).text() == expected(llm, "one two", first, "three")
    assert len(local._loaded) == 1


def test_a_server_gives_the_same(served: ServedModel, llm: LLM) -> None:
    assert "".join(served.prompt("one two", **HOW)) == expected(llm, "one two")
    assert served.prompt("one two", stream=False, **HOW).text() == expected(llm, "one two")


def test_a_key_reaches_a_server_that_wants_one(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(llm, keys=("secret",)) as url:
        monkeypatch.setenv("UMBEL_SERVER", url)
        monkeypatch.setenv("UMBEL_API_KEY", "secret")
        assert ServedModel().prompt("one two", **HOW).text() == expected(llm, "one two")


def test_schemas_are_kept(local: LocalModel, served: ServedModel, directory: Path) -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    here = local.prompt("one", schema=SCHEMA, model=str(directory), temperature=0, max_tokens=40).text()
    assert json.loads(here)["a"] in (1, 2)
    assert served.prompt("one", schema=SCHEMA, temperature=0, max_tokens=40).text() == here


def test_what_cannot_be_asked_is_an_error_of_llm(local: LocalModel, directory: Path) -> None:
    with pytest.raises(simonw.ModelError, match="top_p"):
        local.prompt("one", model=str(directory), top_p=7.0).text()


def test_the_command_finds_both_models(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert '[project.entry-points.llm]\numbel = "umbel.clients.llm_models"' in text
    from llm.plugins import pm

    from umbel.clients import llm_models

    installed = pm.get_name(llm_models)  # the entry point's, where the package was installed with its metadata
    if installed is None:
        pm.register(llm_models, name="umbel-under-test")
    try:
        run = CliRunner().invoke(cli, ["models", "list"])
        assert "LocalModel: umbel" in run.output and "umbel-server" in run.output
        asked = ["-m", "umbel", "-o", "model", str(directory), "-o", "temperature", "0", "-o", "max_tokens", "4", "Hi"]
        run = CliRunner().invoke(cli, asked)
        assert run.exit_code == 0 and run.output.strip()
    finally:
        if installed is None:
            pm.unregister(name="umbel-under-test")

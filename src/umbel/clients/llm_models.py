"""Models of the `llm` command (simonw's): `umbel` runs in its process, `umbel-server` asks a running `umbel serve`.

llm -m umbel -o model Qwen/Qwen3-0.6B 'Three names for a cat'
UMBEL_SERVER=http://127.0.0.1:8000 llm -m umbel-server 'Three names for a cat'
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import llm
from llm.default_plugins.openai_models import Chat
from pydantic import Field

from umbel.errors import UmbelError, UsageError

if TYPE_CHECKING:
    from umbel.api import LLM

LOCAL, SERVED = "umbel", "umbel-server"
ADDRESS, KEY = "UMBEL_SERVER", "UMBEL_API_KEY"


class LocalOptions(llm.Options):
    """What `-o NAME VALUE` gives; what a request of `umbel serve` means by it."""

    model: str = Field(default="demo", description="'demo', a directory, or a hub id")
    max_tokens: int | None = Field(default=None, description="Most tokens of the answer")
    temperature: float | None = Field(default=None, description="0 takes the likeliest token")
    top_p: float | None = Field(default=None, description="Draw from the likeliest tokens of this share")
    top_k: int | None = Field(default=None, description="Draw from so many of the likeliest tokens")
    seed: int | None = Field(default=None, description="Draw the same again")


class LocalModel(llm.Model):
    """Answers in the process of `llm`. A model is loaded for its first prompt, and stays for the rest of a chat."""

    model_id = LOCAL
    can_stream = True
    supports_schema = True

    Options = LocalOptions

    def __init__(self) -> None:
        self._loaded: dict[str, LLM] = {}

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str]:
        """The text of an answer, in pieces as it comes where it is to stream. Raises llm.ModelError."""
        try:
            yield from self._told(prompt, stream, response)
        except UmbelError as error:
            raise llm.ModelError(str(error)) from error

    def _told(self, prompt: llm.Prompt, stream: bool, response: llm.Response) -> Iterator[str]:
        engine = self._engine(prompt.options.model)
        with engine.session() as session:
            session.add([{"messages": messages_of(prompt)}], params_of(engine, prompt), stream=stream)
            session.close()
            for event in session:
                if event.output is None:
                    yield event.text
                    continue
                if event.output.error is not None:
                    raise UsageError(event.output.error.message)
                answer = event.output.outputs[0]
                response.set_usage(input=len(event.output.prompt_token_ids), output=len(answer.token_ids))
                if not stream:
                    yield answer.text

    def _engine(self, name: str) -> LLM:
        from umbel.api import LLM  # brings torch, which other commands of `llm` do not need

        if name not in self._loaded:
            self._loaded[name] = LLM(name)
        return self._loaded[name]


class ServedModel(Chat):
    """Asks the server at UMBEL_SERVER, with the key of UMBEL_API_KEY or `llm keys set umbel` where it wants one."""

    needs_key = LOCAL
    key_env_var = KEY

    def __init__(self) -> None:
        address = os.environ.get(ADDRESS, "http://127.0.0.1:8000").rstrip("/")
        super().__init__(SERVED, api_base=f"{address}/v1", supports_schema=True, supports_tools=True)

    def get_key(self, explicit_key: str | None = None) -> str:
        """A key that was given, or one that a server without keys does not look at."""
        return llm.get_key(explicit_key=explicit_key, key_alias=LOCAL, env_var=KEY) or "none"

    def execute(self, prompt: llm.Prompt, *how: Any, key: str | None = None, **more: Any) -> Iterator[Any]:
        """The pieces of an answer, by the model that the server has."""
        if self.model_name is None:
            self.model_name = self.get_client(key).models.list().data[0].id
        yield from super().execute(prompt, *how, key=key, **more)


def messages_of(prompt: llm.Prompt) -> list[dict[str, str]]:
    """The conversation that a prompt ends, as chat templates take it."""
    return [{"role": one.role, "content": "".join(part.text for part in one.parts)} for one in prompt.messages]


def params_of(engine: LLM, prompt: llm.Prompt) -> Any:
    """How an answer is drawn: the model's own way, but for what was asked. Raises UsageError, InvalidRequest."""
    from umbel.ir.params import SamplingParams
    from umbel.ir.structured import StructuredOutputsParams

    asked = {name: value for name, value in prompt.options if name != "model" and value is not None}
    form = None if prompt.schema is None else StructuredOutputsParams(json=prompt.schema)
    return SamplingParams(**dict(engine.spec.sampling) | asked, structured_outputs=form)


@llm.hookimpl
def register_models(register: Any) -> None:
    """Tell `llm` of both."""
    register(LocalModel())
    register(ServedModel())

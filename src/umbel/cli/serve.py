"""`umbel serve`: an OpenAI-compatible server for one model."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from umbel.batch.declared import Option
from umbel.batch.engine_options import EngineOptions
from umbel.errors import InvalidRequest, UsageError
from umbel.text.answers.names import CallFormatName, ReasoningFormatName

if TYPE_CHECKING:
    from umbel.ir.chat import ChatOptions

_MODEL = "'demo', a directory, or a hub id."
_HOST = "The address to listen at; one that other machines reach needs a key."
_KEY = "A key that clients must send; repeatable; UMBEL_API_KEY gives one that no list of processes shows."
_STORE = "Keep files and batches in this folder; without it there are no /v1/files and /v1/batches."
_CALLS = "How the model writes tool calls [as its chat template does]."
_THOUGHT = "How it writes reasoning before the content [as its chat template does]."
_VARIABLES = "Variables of the chat template, for all chats: '{\"enable_thinking\": false}'."


def serve_command(
    model: Annotated[str, Option("-m", "--model", help=_MODEL)],
    host: Annotated[str, Option(help=_HOST)] = "127.0.0.1",
    port: Annotated[int, Option(help="The port to listen at.", min=0)] = 8000,
    api_key: Annotated[list[str] | None, Option("--api-key", help=_KEY)] = None,
    store: Annotated[Path | None, Option(help=_STORE, metavar="DIR")] = None,
    ttft_target: Annotated[float | None, Option(help="Seconds to the first token that are aimed at.")] = None,
    tbt_target: Annotated[float | None, Option(help="Seconds between two tokens that are aimed at.")] = None,
    served_model_name: Annotated[list[str] | None, Option(help="Names that requests may call the model.")] = None,
    tool_call_parser: Annotated[CallFormatName | None, Option(help=_CALLS)] = None,
    reasoning_parser: Annotated[ReasoningFormatName | None, Option(help=_THOUGHT)] = None,
    chat_template_kwargs: Annotated[
        str | None,
        Option("--chat-template-kwargs", "--default-chat-template-kwargs", help=_VARIABLES, metavar="JSON"),
    ] = None,
    strict: Annotated[bool, Option("--strict", help="Refuse requests with fields that nothing reads.")] = False,
    seed: Annotated[int, Option(help="Seed of requests that have none of their own.")] = 0,
    engine: EngineOptions = EngineOptions(),
) -> int:
    """Serve a model to OpenAI's clients: completions, chats, embeddings, files and batches.

    Every answer is that of `umbel run` for the same body, whatever runs beside it. SIGTERM and Ctrl-C let what runs
    come to its end; a second one does not.

    \f
    Examples:
      umbel serve -m demo
      umbel serve -m Qwen/Qwen3-0.6B --port 9000 --store batches
      UMBEL_API_KEY=$(openssl rand -hex 16) umbel serve -m Qwen/Qwen3-0.6B --host 0.0.0.0

    Exit codes: 0 stopped when what ran was done, 1 the port is taken or the server failed, 2 usage.
    """
    if missing := [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]:
        raise UsageError(f"umbel serve needs {missing[0]}: pip install 'umbel[serve]'")
    from umbel.serve.run import run_server
    from umbel.serve.settings import ServeSettings

    settings = ServeSettings(
        engine.config(model, seed=seed),
        host=host,
        port=port,
        keys=tuple(api_key or filter(None, [os.environ.get("UMBEL_API_KEY")])),
        names=tuple(served_model_name or ()),
        store=store,
        ttft_target=ttft_target,
        tbt_target=tbt_target,
        calls=tool_call_parser,
        reasoning=reasoning_parser,
        chat_options=_chat_options(chat_template_kwargs),
        strict=strict,
    )
    return run_server(settings)


def _chat_options(variables: str | None) -> ChatOptions:
    """What all chats are rendered with. Raises UsageError."""
    from umbel.ir.chat import PLAIN_CHAT, ChatOptions, template_variables

    if variables is None:
        return PLAIN_CHAT
    try:
        return ChatOptions(variables=template_variables(json.loads(variables)))
    except (ValueError, InvalidRequest) as error:
        raise UsageError(f"--chat-template-kwargs {variables!r:.80}: {error}") from None

"""How commands read an input: names, defaults and templates of the command line, a tokenizer when one is needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from umbel.batch.job_options import ReadingOptions
from umbel.config import EngineConfig, readable
from umbel.errors import InvalidRequest, ModelError, UsageError
from umbel.ir.branches import Branches
from umbel.ir.chat import PLAIN_CHAT, Chat, ChatOptions, template_variables
from umbel.ir.limits import NO_WORDS
from umbel.ir.params import SamplingParams
from umbel.ir.pooling import WRITER, Pooler, PoolingParams
from umbel.ir.spec import ModelSpec
from umbel.jobs.read.formats.documents import DocumentStyle
from umbel.jobs.read.formats.template import Template
from umbel.jobs.read.inputs import Inputs
from umbel.jobs.read.layout import find_layout, laid_out
from umbel.jobs.read.records import ReadNotes, ReadOptions
from umbel.jobs.read.source_files import open_source
from umbel.models.sources.find import source_at
from umbel.plan.for_rows import techniques_of
from umbel.plan.reuse import check_reuse, reuses
from umbel.text.answers.choose import answers_of

if TYPE_CHECKING:
    from umbel.text.masker import Masker
    from umbel.text.tokenizer import Tokenizer

MAX_STOPS = 1_000  # different stop strings that are looked at: enough to see what is wrong


class LateTokenizer:
    """A tokenizer that is loaded when the first text comes: rows of token ids need none, and no file for it.

    `directory`: where it lies; None where the model is the shape `model`, which has none.
    `now`: the moment that chat templates see as today.
    """

    def __init__(self, directory: Path | None, now: datetime | None = None, model: str = ""):
        self._directory, self._model = directory, model
        self._now = now
        self._stops: set[str] = set()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on what is not obeyed of the tokenizer's files, once it is loaded, and on stop strings that cannot
        match."""
        if not self._stops and "_loaded" not in self.__dict__:
            return ()
        return *self._loaded.notes, *self._loaded.decoder.notes_on_stops(sorted(self._stops))

    def check_stops(self, params: SamplingParams) -> None:
        """Note stop strings. Raises InvalidRequest where there is no tokenizer to find them with, or to hold answers to
        a form with, unless the model is a shape, which writes nothing."""
        if self._directory is None:
            return
        if not self._exists and params.structured_outputs is not None:
            raise InvalidRequest("unsupported_parameter", "structured_outputs need a tokenizer", "structured_outputs")
        if not self._exists:
            raise InvalidRequest("unsupported_parameter", "stop strings need a tokenizer; use stop_token_ids", "stop")
        if params.skip_special_tokens and len(self._stops) < MAX_STOPS:
            self._stops.update(params.stop)

    def check_bad_words(self, words: tuple[str, ...], width: int) -> None:
        """Raise InvalidRequest for bad words that are no tokens of the model, as far as there is a tokenizer; a shape
        has none, and writes nothing."""
        if self._directory is None:
            return
        if not self._exists:
            raise InvalidRequest("unsupported_parameter", NO_WORDS, "bad_words")
        self._loaded.word_runs.check(words, width)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        return self._loaded.encode(texts)

    def encode_alone(self, texts: Sequence[str]) -> list[list[int]]:
        """The same without the special tokens that begin or end a text."""
        return self._loaded.encode(texts, add_special_tokens=False)

    def encode_chat(self, conversations: Sequence[Chat]) -> Sequence[list[int] | InvalidRequest]:
        """Token ids of each chat, or the error that it has none."""
        return self._loaded.encode_chat(conversations)

    def token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes that each id adds to a text."""
        return self._loaded.token_bytes(ids)

    def template(self) -> str | None:
        """The text of the model's chat template, None where there is none."""
        return self._loaded.template_text if self._exists else None

    def masker(self, width: int, ends: tuple[int, ...]) -> tuple[Masker, list[bytes]]:
        """What follows forms of answers of a model of vocabulary `width`, whose texts `ends` end, and the bytes of its
        tokens. Raises UmbelError where there is no tokenizer."""
        from umbel.text.grammars import Grammars

        return self._loaded.masker(Grammars, width, ends), self._loaded.token_bytes(range(width))

    def spell(self, ids: Sequence[int]) -> str:
        """The text of token ids; "" where no row has made the tokenizer necessary."""
        return b"".join(self.token_bytes(ids)).decode("utf-8", "replace") if "_loaded" in self.__dict__ else ""

    def decode(self, ids: Sequence[int]) -> str | None:
        """The text of ids, special tokens included; None where there is no tokenizer that can be read."""
        try:
            return self._loaded.decode(ids, skip_special_tokens=False) if self._exists else None
        except ModelError:
            return None

    @cached_property
    def _exists(self) -> bool:
        return self._directory is not None and source_at(self._directory).has("tokenizer.json")

    @cached_property
    def _loaded(self) -> Tokenizer:
        from umbel.text.tokenizer import Tokenizer

        if self._directory is None:
            raise UsageError(
                f"--model {self._model} is a shape without a tokenizer: give token ids, or --tokenizer DIR"
            )
        return Tokenizer.load(self._directory, self._now)


def read_options(
    defaults: SamplingParams,
    reading: ReadingOptions,
    width: int | None,
    models: frozenset[str] | None,
    template: Callable[[], str | None] = lambda: None,
    vectors: PoolingParams | None = None,
    pooler: Pooler = WRITER,
) -> ReadOptions:
    """Reader settings from the command line's; `template` gives the model's chat template where it is looked at,
    `vectors` are what rows get instead of answers, `pooler` what the model gives. Raises UsageError for a template that
    cannot be read, and for what asks for something of answers where there are none."""
    _check_vectors(defaults, vectors)
    if reading.system is not None:
        Template.parse(reading.system, "--system", constant=True)
    if reading.prompt is not None:
        Template.parse(reading.prompt)
    elif wanted := _of_templates(reading):
        raise UsageError(f"{wanted}: only means something with --prompt")
    return ReadOptions(
        defaults,
        reading.prompt,
        reading.chat or (reading.prompt is not None and reading.system is not None),
        reading.strict,
        width,
        models,
        branches=_branches(reading.choices, reading.calibration_prompt),
        keep=kept_names(reading.keep_columns),
        id_column=reading.id_column,
        include_prompt=reading.include_prompt,
        system=reading.system,
        answers=answers_of(reading.tool_call_parser, reading.reasoning_parser, template),
        chat_options=_chat_options(reading.chat_template_kwargs),
        vectors=vectors,
        pooler=pooler,
        documents=_documents(reading),
    )


def with_techniques(options: ReadOptions, config: EngineConfig, spec: ModelSpec) -> ReadOptions:
    """The options with the techniques that rows may leave out, and with documents known apart from the rest of prompts
    where one wants that. Raises UsageError where prompts do not have them as a column of their own, and for models and
    settings that cannot bear it."""
    options = replace(options, techniques=techniques_of(config))
    if not (technique := reuses(config)):
        return options
    check_reuse(config, spec)
    column, template = options.documents.column, options.template
    names = [name for _, name in Template.parse(template).parts] if template is not None else []
    why = f"--prompt must have {{{column}}}, once" if names.count(column) != 1 else ""
    if options.chat or options.system is not None:
        why = "chats are rendered whole, and documents in them are not found again: leave --chat and --system out"
    if why:
        raise UsageError(f"--technique {technique}: {why}")
    return replace(options, apart=True)


def _documents(reading: ReadingOptions) -> DocumentStyle:
    """How documents of rows are written. Raises UsageError for a column that no template reads."""
    style = DocumentStyle.parse(reading.documents, reading.document_format)
    columns = [Template.parse(text, constant=True).columns for text in (reading.prompt, reading.system) if text]
    if (reading.documents or reading.document_format) and style.column not in frozenset().union(*columns):
        raise UsageError(f"--documents: --prompt does not say where they stand; write {{{style.column}}} there")
    return style


def _of_templates(reading: ReadingOptions) -> str | None:
    """The option, if any, that asks for something of the template of prompts."""
    given = {"--chat": reading.chat, "--layout": reading.layout != "off", "--pin": reading.pin is not None}
    given |= {"--documents": reading.documents is not None, "--document-format": reading.document_format is not None}
    return next((option for option, is_given in given.items() if is_given), None)


def put_layout(options: ReadOptions, source: Inputs, reading: ReadingOptions, *, advise: bool = False) -> ReadOptions:
    """The options with the template's lines in the order that is asked for; with `advise` also a look at what another
    order would save, where none is asked for. Raises UsageError for pinned columns that there are not, and for an input
    that cannot be read."""
    if not advise and reading.layout == "off":
        return options
    pinned = () if reading.pin is None else tuple(name.strip() for name in reading.pin.split(","))
    found = find_layout(open_source(source, options, ReadNotes()), pinned, reading.layout)
    return laid_out(options, found, reading.layout)


def _check_vectors(defaults: SamplingParams, vectors: PoolingParams | None) -> None:
    """Raise UsageError for what asks for something of answers where rows get vectors."""
    try:
        _ = vectors and replace(defaults, pooling_params=vectors)
    except InvalidRequest as error:
        raise UsageError(f"--{(error.param or '').replace('_', '-')}: {error.message}") from None


def _chat_options(variables: str | None) -> ChatOptions:
    """What all chats are rendered with."""
    if variables is None:
        return PLAIN_CHAT
    try:
        return ChatOptions(variables=template_variables(json.loads(variables)))
    except ValueError as error:
        why = f"no JSON ({error})"
    except InvalidRequest as error:
        why = error.message
    raise UsageError(f"--chat-template-kwargs {variables!r:.80}: {why}")


def kept_names(keep: str | None) -> tuple[str, ...] | None:
    """The columns of --keep, None for all of them."""
    if keep is None or keep == "all":
        return None
    names = () if keep == "none" else tuple(name.strip() for name in keep.split(","))
    if not all(names):
        raise UsageError(f"--keep {keep!r}: give all, none, or names of columns with a comma between them")
    return names


def _branches(choices: str | None, calibration_prompt: str | None) -> Branches | None:
    if choices is None:
        if calibration_prompt is not None:
            raise UsageError("--calibration-prompt: only means something with --choices")
        return None
    labels = tuple(choices.split(","))
    if len(labels) < 2 or not all(labels):
        raise UsageError(f"--choices {choices!r}: give at least two labels with a comma between them")
    return Branches(labels, True, calibration_prompt or None)


def model_names(model: str, directory: Path | None, served: tuple[str, ...] | list[str]) -> list[str]:
    """The names that rows may call the model, the one shown in answers first: --served-model-name, --model, its last
    part. `directory` is None for a shape."""
    folder = "" if directory is None else readable(directory.resolve().name)
    names = [*served, model, folder, model.rstrip("/").rsplit("/", 1)[-1]]
    return list(dict.fromkeys(name for name in names if name))

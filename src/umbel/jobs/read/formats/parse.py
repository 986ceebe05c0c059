"""From a decoded object to an `InputRow`: OpenAI envelopes and plain rows, with every fault as a named error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from umbel.errors import InvalidRequest, UsageError
from umbel.ir import body as wire
from umbel.ir.adapter import check_adapter
from umbel.ir.branches import Branches
from umbel.ir.chat import CHAT_FIELDS, ChatOptions, Message, chat_options
from umbel.ir.contain import as_refusal, concerns_row, row_error
from umbel.ir.limits import refuse, shown
from umbel.ir.params import SamplingParams
from umbel.ir.pooling import OF_PROMPTS
from umbel.ir.prompts import check_messages, check_prompt, missing_prompt
from umbel.ir.request import Request
from umbel.jobs.read.formats.branches import FIELDS, branches_of
from umbel.jobs.read.formats.calls import Calling
from umbel.jobs.read.formats.documents import DocumentStyle
from umbel.jobs.read.formats.field_names import FieldNames
from umbel.jobs.read.formats.for_model import for_model
from umbel.jobs.read.formats.forms import Forms
from umbel.jobs.read.formats.ids import custom_id_of, id_in
from umbel.jobs.read.formats.keeping import Keeping, file_column
from umbel.jobs.read.formats.template import Template
from umbel.jobs.read.formats.vectors import ACTIVATION, inputs_of
from umbel.jobs.read.formats.vectors import FIELDS as VECTOR_FIELDS
from umbel.jobs.read.records import InputRow, ReadNotes, ReadOptions, Style

ENDPOINTS: Mapping[str, Style] = {
    "/v1/chat/completions": Style.CHAT,
    "/v1/completions": Style.COMPLETION,
    "/v1/embeddings": Style.EMBEDDINGS,
    **dict.fromkeys(("/classify", "/v1/classify"), Style.CLASSIFY),
    **dict.fromkeys(("/score", "/v1/score"), Style.SCORE),
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), Style.RERANK),
}
_DIALECTS = {Style.CHAT: wire.CHAT, Style.COMPLETION: wire.COMPLETION, Style.PLAIN: wire.PLAIN}
_DIALECTS |= {
    style: wire.Dialect(style.name.lower(), names | ACTIVATION, None) for style, names in VECTOR_FIELDS.items()
}
_MEMO_ENTRIES = 4_096
_SYSTEM = ("system", "developer")  # roles of a message that says how to answer
_LIMITS = ("max_tokens", "max_completion_tokens")
SHORT_COMPLETION = (
    f"/v1/completions without max_tokens: at most {wire.COMPLETION.max_tokens} tokens are generated, as by OpenAI and "
    "vLLM; --max-tokens sets another limit for them"
)


@dataclass(slots=True)
class RowParser:
    """Turns objects into rows.

    `endpoint`: the url of an OpenAI batch file, None for a plain one.
    `template`, `system`: make the prompt, and the system message of a chat that has none, from columns.
    `documents`: how documents among these are written; None: no column is one of documents.
    `table`: rows are those of a table, of which all columns come back.
    `file`: the name of the file, which comes back on plain rows; None where it is the only one.
    `first`: the number of the file's first row.
    `data`: the columns that templates use.

    Rows mostly repeat the same sampling fields, so checked parameters are cached by their JSON bytes, and shared.
    """

    options: ReadOptions
    notes: ReadNotes
    endpoint: str | None = None
    template: Template | None = None
    system: Template | None = None
    documents: DocumentStyle | None = None
    table: bool = False
    file: str | None = None
    first: int = 0
    data: frozenset[str] = field(init=False)
    keeping: Keeping = field(init=False)
    names: FieldNames = field(init=False)
    _memo: dict[tuple[int, bytes], SamplingParams] = field(default_factory=dict)
    _forms: Forms = field(default_factory=Forms)
    _tools: Calling = field(init=False)
    _plain: SamplingParams = field(init=False)

    def __post_init__(self) -> None:
        given = [template.columns for template in (self.template, self.system) if template is not None]
        self.data = frozenset().union(*given)  # a column that feeds the prompt is no sampling field, whatever its name
        self._tools = Calling(self.options.answers)
        usual, vectors = self.options.defaults, self.options.vectors
        self._plain = usual if vectors is None else replace(usual, pooling_params=vectors)
        self.names = FieldNames(self.data, self.options.id_column)
        head = file_column(self.file, self.options.keep)
        self.keeping = Keeping(self.options, self.table, self.data, self.template is not None, head)

    def check_options(self) -> None:
        """Raise UsageError for what OpenAI batch lines have no place for, or say themselves."""
        asked = self.options
        given = {"--keep": asked.keep is not None, "--id": asked.id_column is not None}
        given |= {"--include-prompt": asked.include_prompt, "--system": asked.system is not None}
        for option in [name for name, is_given in given.items() if is_given and self.endpoint is not None]:
            whole = option == "--system"
            why = "which hold whole conversations" if whole else "and so has the output, without other fields"
            raise UsageError(f"{option}: the input has OpenAI batch lines, {why}")

    @property
    def style(self) -> Style:
        """The dialect of rows that cannot be read far enough to show their own."""
        return Style.PLAIN if self.endpoint is None else ENDPOINTS.get(self.endpoint, Style.CHAT)

    @property
    def id_field(self) -> str:
        """The field that gives a row its id."""
        return self.options.id_column or "custom_id"

    def broken(
        self,
        row: int,
        line: int,
        error: InvalidRequest,
        found: Mapping[str, Any] | None = None,
        cells: Mapping[str, Any] | None = None,
    ) -> InputRow:
        """Row `row` of the file, which cannot be read; `found` holds what was read of it, for its id, None for nothing,
        `cells` its columns as they come back."""
        row += self.first
        columns = self.keeping.head if self.endpoint is None else b""
        if found is None:
            return InputRow(row, line, None, self.style, None, row_error(error), False, columns, self.file)
        explicit = id_in(found, self.id_field)
        implicit = str(row) if self.id_field not in found and not self._needs_id else None
        style, columns = self._style_of(found), columns if cells is None else self.keeping.pack(cells)
        name, given = explicit or implicit, explicit is not None
        return InputRow(row, line, name, style, None, row_error(error), given, columns, self.file)

    def parse(self, row: int, line: int, item: Mapping[str, Any], cells: Mapping[str, Any] | None = None) -> InputRow:
        """Row `row` of the file, from an object; never raises for what the object holds. `cells` are its columns as
        they come back, where they are not those of the object."""
        row += self.first
        custom_id, explicit, fault = custom_id_of(item, row, self.id_field, required=self._needs_id)
        cells = item if cells is None else cells
        try:
            if fault is not None:
                raise fault
            request, style = self._request(item)
        except BaseException as error:
            if not concerns_row(error):
                raise
            reason = row_error(as_refusal(error, "reading"))
            columns = self.keeping.pack(cells) if self.endpoint is None else b""
            return InputRow(row, line, custom_id, self._style_of(item), None, reason, explicit, columns, self.file)
        if self.endpoint is None:
            columns = self.keeping.pack(cells, _prompt_of(request) if self.options.include_prompt else None)
            return InputRow(row, line, custom_id, style, request, None, explicit, columns, self.file)
        return InputRow(row, line, custom_id, style, request, None, explicit, b"", self.file)

    @property
    def _needs_id(self) -> bool:
        return self.endpoint is not None or self.options.id_column is not None

    def _style_of(self, item: Mapping[str, Any]) -> Style:
        url = item.get("url") if self.endpoint is not None else None
        return ENDPOINTS.get(url, self.style) if isinstance(url, str) else self.style

    def _request(self, item: Mapping[str, Any]) -> tuple[Request, Style]:
        if self.endpoint is not None:
            style, inner = _envelope(item, self.endpoint, any_url=self.options.any_url)
            inner = for_model(inner, self.options)
            params = self._params(inner, style)
            if style in VECTOR_FIELDS:
                return self._vectors_request(inner, style, params), style
            echo = style == Style.COMPLETION and inner.get("echo") is True
            request = _openai_request(inner, style, params, self.options.width, self.options.chat_options)
            return self._tools.told(inner, request) if style == Style.CHAT else (request, Style.ECHO if echo else style)
        places = self._places(item)
        item = for_model(item, self.options) if self.template is None else self._with_documents(item)
        request = self._plain_request(item)
        if places and request.branches is not None:
            refuse("unsupported_parameter", "documents", "choices of a prompt with documents apart: leave one out")
        request = replace(request, documents=places) if places else request
        return self._tools.told_plain(item if self.template is None else {}, request)

    def _places(self, item: Mapping[str, Any]) -> Sequence[tuple[int, int]]:
        """Where documents stand in the prompt of a row whose documents are computed apart."""
        style, template = self.documents, self.template
        return style.places(item, template) if self.options.apart and style and template else ()

    def _vectors_request(self, body: Mapping[str, Any], style: Style, params: SamplingParams) -> Request:
        kept = {name: getattr(params, name) for name in OF_PROMPTS}
        inputs = inputs_of(body, style, SamplingParams(**kept), self.options.pooler, self.options.width)
        return Request(params=inputs.params, branches=Branches((), inputs=inputs))

    def _plain_request(self, item: Mapping[str, Any]) -> Request:
        params = self._params(item, Style.PLAIN)
        own = {name: item[name] for name in FIELDS if name in item and name not in self.data}
        branches = branches_of(own, self.options.branches)
        if self.template is not None:
            text = self.template.fill(item)
            if self.options.chat:
                messages = self._chat(item, [{"role": "user", "content": text}])
                return Request(None, messages, params, branches, self.options.chat_options)
            return Request(check_prompt(text, None), None, params, branches)
        prompt, messages = item.get("prompt"), item.get("messages")
        if prompt is None and messages is None:
            refuse("missing_required_parameter", "prompt", missing_prompt(item))
        if prompt is not None and messages is not None:
            refuse("invalid_value", "messages", "both prompt and messages are given: a row has one of them")
        chat = chat_options(item, self.options.chat_options)
        if messages is not None:
            return Request(None, self._chat(item, check_messages(messages)), params, branches, chat)
        if self.system is not None and isinstance(prompt, str):
            messages = self._chat(item, [{"role": "user", "content": prompt}])
            return Request(None, messages, params, branches, chat)
        if chat is not self.options.chat_options:
            name = next(name for name in item if name in CHAT_FIELDS and item[name] is not None)
            refuse("invalid_value", name, f"{name} is for chats: this row has a prompt, which no template renders")
        if self.system is not None:
            refuse("invalid_value", "prompt", "token ids cannot follow a system message: leave --system out")
        return Request(check_prompt(prompt, self.options.width), None, params, branches)

    def _with_documents(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        style = self.documents
        return item if style is None or style.column not in self.data else style.written(item)

    def _chat(self, item: Mapping[str, Any], messages: Sequence[Message]) -> Sequence[Message]:
        """A conversation, behind the job's system message unless it has one of its own."""
        if self.system is None or messages[0]["role"] in _SYSTEM:
            return messages
        return [{"role": "system", "content": self.system.fill(item)}, *messages]

    def _params(self, item: Mapping[str, Any], style: Style) -> SamplingParams:
        dialect = _DIALECTS[style]
        defaults = self._plain if style == Style.PLAIN else self.options.defaults_of(style)
        effective, unknown = self.names.sort(item, dialect, guess=style == Style.PLAIN)
        if unknown:
            if self.options.strict:
                wire.refuse_unknown(unknown, dialect)
            self.notes.ignored(unknown)
        asked = self._forms.told({name: item[name] for name in effective})
        is_short = dialect.max_tokens is not None and defaults.max_tokens is None and _sets_no_limit(item)
        if not asked and not is_short:
            return defaults
        key = (int(style), orjson.dumps(asked, default=repr))
        params = self._memo.get(key)
        if params is None:
            params = wire.params_from_body(asked, dialect, defaults, self.options.width)
            if params.lora is not None:
                check_adapter(params.lora, self.options.loras)
            self.options.techniques.check(params)
            if len(self._memo) >= _MEMO_ENTRIES:
                self._memo.clear()
            self._memo[key] = params
        if is_short:
            self.notes.note(SHORT_COMPLETION)
        return params


def _prompt_of(request: Request) -> dict[str, Any]:
    if request.messages is not None:
        return {"messages": request.messages}
    return {"prompt": request.prompt}


def _envelope(item: Mapping[str, Any], endpoint: str, *, any_url: bool) -> tuple[Style, dict[str, Any]]:
    """Style and body of an OpenAI batch line whose file goes to `endpoint`, or anywhere."""
    if item.get("method") != "POST":
        refuse("invalid_method", "method", f"method={shown(item.get('method'))}: must be 'POST'")
    url = item.get("url")
    if "url" not in item:
        refuse("missing_required_parameter", "url", f"url is missing: must be {endpoint!r}")
    if not isinstance(url, str) or url not in ENDPOINTS:
        refuse("invalid_url", "url", f"url={shown(url)}: must be one of {', '.join(ENDPOINTS)}")
    if url != endpoint and not any_url:
        refuse("url_mismatch", "url", f"url={url!r}: the file's first request goes to {endpoint!r}; one url per file")
    inner = item.get("body")
    if not isinstance(inner, dict):
        shape = "is missing" if "body" not in item else f"is {shown(inner)}"
        refuse("invalid_body", "body", f"body {shape}: must be an object")
    return ENDPOINTS[url], inner


def _openai_request(
    inner: Mapping[str, Any], style: Style, params: SamplingParams, width: int | None, chat: ChatOptions
) -> Request:
    wanted = "messages" if style == Style.CHAT else "prompt"
    if inner.get(wanted) is None:
        refuse("missing_required_parameter", wanted, f"{wanted} is missing")
    if style == Style.CHAT:
        return Request(None, check_messages(inner["messages"]), params, chat=chat_options(inner, chat))
    return Request(check_prompt(inner["prompt"], width), None, params)


def _sets_no_limit(item: Mapping[str, Any]) -> bool:
    return all(item.get(name) is None for name in _LIMITS)

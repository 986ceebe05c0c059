"""Bodies of the endpoints for embeddings, classes, scores and ranks, as OpenAI, vLLM, Jina and Cohere write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.ir.inputs import Inputs, Text
from umbel.ir.limits import check_bool, check_choice, check_int, refuse, shown
from umbel.ir.params import SamplingParams
from umbel.ir.pooling import Pooler, PoolingParams
from umbel.ir.prompts import check_prompt
from umbel.jobs.read.records import Style

MOST = 4_096  # inputs of a line
FIELDS: Mapping[Style, frozenset[str]] = {
    Style.EMBEDDINGS: frozenset({"input", "encoding_format", "dimensions"}),
    Style.CLASSIFY: frozenset({"input"}),
    Style.SCORE: frozenset({"text_1", "text_2", "queries", "documents", "data_1", "data_2"}),
    Style.RERANK: frozenset({"query", "documents", "top_n", "return_documents", "max_tokens_per_doc"}),
}
"""What each endpoint reads, beside `use_activation`, its older names, and what a prompt is cut to."""
ACTIVATION = frozenset({"use_activation", "normalize", "activation", "softmax"})
_SIDES = (("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2"))


def inputs_of(body: Mapping[str, Any], style: Style, cut: SamplingParams, pooler: Pooler, width: int | None) -> Inputs:
    """What a body asks for; `cut` says what becomes of prompts that are too long. Raises InvalidRequest, also where the
    model does not give it."""
    if style in (Style.EMBEDDINGS, Style.CLASSIFY):
        encoding = body.get("encoding_format") or "float"
        check_choice("encoding_format", encoding, ("float", "base64"))
        task = "embed" if style == Style.EMBEDDINGS else "classify"
        asked = PoolingParams(task, None, _activation(body), body.get("dimensions"))
        found, left, as_base64 = _texts("input", body.get("input"), width), 0, encoding == "base64"
    else:
        asked, as_base64 = PoolingParams(pooler.task), False
        found, left = _sides(body, style, width)
        _check_scored(pooler)
    pooler.check(asked)
    params = cut.clone(pooling_params=asked)
    if left and pooler.labels:
        pairs = [*(found[:1] * (len(found) - 1) if left == 1 else found[:left]), *found[left:]]
        return Inputs(tuple(pairs), params, True, left, top_n=_top_n(body))
    return Inputs(tuple(found), params, False, left, as_base64, _top_n(body))


def _activation(body: Mapping[str, Any]) -> bool | None:
    for name in sorted(ACTIVATION & body.keys()):
        if body[name] is not None:
            return check_bool(name, body[name])
    return None


def _check_scored(pooler: Pooler) -> None:
    if len(pooler.labels) > 1:
        why = f"this model has {len(pooler.labels)} classes: a score is of one; use /classify"
        refuse("unsupported_parameter", "url", why)


def _sides(body: Mapping[str, Any], style: Style, width: int | None) -> tuple[list[Text], int]:
    """Texts of the left and of the right, behind one another, and how many are on the left: one, or as many."""
    names = ("query", "documents") if style == Style.RERANK else _given(body)
    left, right = (_texts(name, body.get(name), width) for name in names)
    if len(left) not in (1, len(right)) or (style == Style.RERANK and len(left) != 1):
        refuse(
            "invalid_value",
            names[0],
            f"{names[0]} has {len(left)} texts and {names[1]} {len(right)}: give one or as many",
        )
    return [*left, *right], len(left)


def _given(body: Mapping[str, Any]) -> tuple[str, str]:
    for pair in _SIDES:
        if any(body.get(name) is not None for name in pair):
            return pair
    refuse("missing_required_parameter", "text_1", "text_1 and text_2 are missing")


def _texts(name: str, value: Any, width: int | None) -> list[Text]:
    """One text or several, or token ids of one or several."""
    if value is None:
        refuse("missing_required_parameter", name, f"{name} is missing")
    several = isinstance(value, list) and bool(value) and not isinstance(value[0], int)
    listed = value if several else [value]
    if len(listed) > MOST:
        refuse("invalid_value", name, f"{name} has {len(listed):,} entries: at most {MOST:,}")
    return [_text(name, one, width) for one in listed]


def _text(name: str, value: Any, width: int | None) -> Text:
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        value = value["text"]  # a document, as Jina and Cohere have them
    if not isinstance(value, (str, list)):
        refuse("invalid_type", name, f"{name}={shown(value)}: must be a text or token ids, or a list of these")
    found = check_prompt(value, width)
    return found if isinstance(found, str) else tuple(found)


def _top_n(body: Mapping[str, Any]) -> int | None:
    """How many documents are wanted; 0 and less stand for all, as in vLLM."""
    top_n = body.get("top_n")
    if top_n is None:
        return None
    return check_int("top_n", top_n, -(2**31), 2**31 - 1) if top_n > 0 else None

"""Sampling fields: one validator for Python, plain rows and OpenAI bodies."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest

from umbel.errors import InvalidRequest
from umbel.ir import neutral
from umbel.ir.body import CHAT, COMPLETION, PLAIN, params_from_body, refuse_unknown, unknown_fields
from umbel.ir.chat import CHAT_FIELDS
from umbel.ir.limits import check_prompt_ids, check_token_ids
from umbel.ir.params import SamplingParams

DEFAULTS = SamplingParams()


def code(fields: dict[str, Any], dialect: Any = PLAIN) -> tuple[str, str | None]:
    with pytest.raises(InvalidRequest) as caught:
        params_from_body(fields, dialect, DEFAULTS, 512)
    return caught.value.code, caught.value.param


def test_good_values_pass() -> None:
    params = SamplingParams(n=4, temperature=0, top_p=1, top_k=-1, min_p=0.5, seed=-(2**63), stop="x", max_tokens=1)
    assert (params.temperature, params.top_p, params.top_k, params.stop) == (0.0, 1.0, 0, ("x",))
    assert isinstance(params.temperature, float)
    assert SamplingParams(stop=["a", "b"], stop_token_ids=[1]).stop_token_ids == (1,)  # type: ignore[arg-type]
    assert hash(params) == hash(SamplingParams(4, 0.0, 1.0, 0, 0.5, -(2**63), ("x",), max_tokens=1))


@pytest.mark.parametrize(
    "fields, wanted",
    [
        ({"n": 0}, "invalid_value"),
        ({"n": 16_385}, "invalid_value"),
        ({"n": True}, "invalid_type"),
        ({"n": 2.0}, "invalid_type"),
        ({"temperature": float("nan")}, "invalid_value"),
        ({"temperature": float("inf")}, "invalid_value"),
        ({"temperature": "hot"}, "invalid_type"),
        ({"temperature": True}, "invalid_type"),
        ({"top_p": 0.0}, "invalid_value"),
        ({"top_k": -2}, "invalid_value"),
        ({"min_p": 1.01}, "invalid_value"),
        ({"seed": 2**63}, "invalid_value"),
        ({"stop": ("a",) * 65}, "invalid_value"),
        ({"stop": ("",)}, "invalid_value"),
        ({"stop": (7,)}, "invalid_type"),
        ({"stop": ("x" * 5_000,)}, "invalid_value"),
        ({"stop_token_ids": (-1,)}, "invalid_token_id"),
        ({"stop_token_ids": (True,)}, "invalid_type"),
        ({"stop_token_ids": tuple(range(2_000))}, "invalid_value"),
        ({"max_tokens": 0}, "invalid_value"),
        ({"min_tokens": -1}, "invalid_value"),
        ({"min_tokens": 5, "max_tokens": 4}, "invalid_value"),
        ({"logprobs": 21}, "invalid_value"),
        ({"logprobs": True}, "invalid_type"),
        ({"ignore_eos": 1}, "invalid_type"),
    ],
)
def test_bad_values_are_named(fields: dict[str, Any], wanted: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        SamplingParams(**fields)
    assert (caught.value.code, caught.value.param) == (wanted, next(iter(fields)))


def test_defaults_hold_where_a_body_is_silent_or_null() -> None:
    defaults = SamplingParams(max_tokens=9, temperature=0.5)
    params = params_from_body({"temperature": None, "n": 2}, PLAIN, defaults)
    assert (params.max_tokens, params.temperature, params.n) == (9, 0.5, 2)


def test_openai_names() -> None:
    assert params_from_body({"max_completion_tokens": 7}, CHAT, DEFAULTS).max_tokens == 7
    assert params_from_body({"max_tokens": 7, "max_completion_tokens": 7}, CHAT, DEFAULTS).max_tokens == 7
    assert code({"max_tokens": 6, "max_completion_tokens": 7}) == ("invalid_value", "max_completion_tokens")
    assert params_from_body({"stop": "x"}, CHAT, DEFAULTS).stop == ("x",)
    assert params_from_body({"n": 2, "best_of": 2}, COMPLETION, DEFAULTS).n == 2
    assert code({"n": 2, "best_of": 3}) == ("unsupported_parameter", "best_of")


def test_logprobs_by_dialect() -> None:
    def asked(fields: dict[str, Any], dialect: Any) -> int | None:
        return params_from_body(fields, dialect, DEFAULTS).logprobs

    assert asked({"logprobs": True}, CHAT) == 0
    assert asked({"logprobs": True, "top_logprobs": 5}, CHAT) == 5
    assert asked({"logprobs": False}, CHAT) is None
    assert asked({"logprobs": 5}, COMPLETION) == 5
    assert asked({"logprobs": 5}, PLAIN) == asked({"logprobs": True, "top_logprobs": 5}, PLAIN) == 5
    assert code({"logprobs": 5}, CHAT) == ("invalid_type", "logprobs")
    assert code({"logprobs": True}, COMPLETION) == ("invalid_type", "logprobs")
    assert code({"top_logprobs": 3}, CHAT) == ("invalid_value", "top_logprobs")


def test_what_the_engine_does_not_do_is_refused_after_its_range_is_checked() -> None:
    assert code({"presence_penalty": 3}) == ("invalid_value", "presence_penalty")
    assert code({"length_penalty": 2}) == ("unsupported_parameter", "length_penalty")
    assert code({"logit_bias": {"9": 101}}) == ("invalid_value", "logit_bias[9]")
    assert code({"logit_bias": {"9": 1, "09": 2}}) == ("invalid_value", "logit_bias")
    assert code({"prompt_logprobs": -1}) == ("invalid_value", "prompt_logprobs")
    assert code({"echo": True}, PLAIN) == ("unsupported_parameter", "echo")
    assert code({"stream": True}) == ("unsupported_parameter", "stream")
    assert code({"stream": "yes"}) == ("unsupported_parameter", "stream")


def test_fields_that_ask_for_nothing_pass() -> None:
    neutral = {"presence_penalty": 0, "repetition_penalty": 1.0, "logit_bias": {}, "stream": False, "tools": []}
    neutral |= {"response_format": {"type": "text"}, "echo": False, "suffix": None, "structured_outputs": None}
    assert params_from_body(neutral | {"user": "u", "metadata": {}}, PLAIN, DEFAULTS) == DEFAULTS


def test_unknown_fields_and_the_nearest_name() -> None:
    fields = {"prompt": "x", "max_tokns": 3, "label": "a", "user": "u"}
    assert unknown_fields(fields, PLAIN) == ["max_tokns", "label"]
    assert unknown_fields({"prompt": "x"}, CHAT) == ["prompt"]
    with pytest.raises(InvalidRequest, match="did you mean 'max_tokens'") as caught:
        refuse_unknown(["max_tokns"], PLAIN)
    assert caught.value.code == "unknown_parameter"


def test_token_ids_within_the_vocabulary() -> None:
    check_token_ids([0, 511], 512)
    check_token_ids([], 512)
    for ids in ([-1], [3, 512], [2**70]):
        with pytest.raises(InvalidRequest, match="0 to 511") as caught:
            check_token_ids(ids, 512)
        assert caught.value.code == "invalid_token_id"


@pytest.mark.parametrize("ids", [[1, "a"], [True], [1.0], [None]])
def test_prompt_ids_are_whole_numbers(ids: list[Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_prompt_ids(ids)
    assert caught.value.code == "invalid_type"


def test_huge_lists_are_refused_by_their_length_and_briefly() -> None:
    """Before anything in them is looked at: they hold nothing that would do."""
    nothing = [None] * 500_000
    for fields in ({"stop": nothing}, {"stop_token_ids": nothing}, {"n": 10**6}, {"stop": "x" * 10**6}):
        with pytest.raises(InvalidRequest) as caught:
            params_from_body(fields, PLAIN, DEFAULTS)
        assert len(caught.value.message) < 300
        assert nothing not in fields.values() or "500,000 entries" in caught.value.message


def test_none_asks_for_the_default() -> None:
    names = [each.name for each in dataclasses.fields(SamplingParams)]
    assert SamplingParams(**dict.fromkeys(names)) == SamplingParams()


# vllm.SamplingParams of 0.11 with its defaults, written out; what was removed since is below it.
VLLMS: dict[str, Any] = {
    **{"n": 1, "presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0, "temperature": 1.0},
    **{"top_p": 1.0, "top_k": 0, "min_p": 0.0, "seed": None, "stop": None, "stop_token_ids": None, "ignore_eos": False},
    **{"max_tokens": 16, "min_tokens": 0, "logprobs": None, "prompt_logprobs": None, "flat_logprobs": False},
    **{
        "detokenize": True,
        "skip_special_tokens": True,
        "spaces_between_special_tokens": True,
        "logits_processors": None,
    },
    **{"include_stop_str_in_output": False, "truncate_prompt_tokens": None},
    **{"output_text_buffer_length": 0, "bad_words": None},
    **{
        "structured_outputs": None,
        "logit_bias": None,
        "allowed_token_ids": None,
        "extra_args": None,
        "bad_words": None,
    },
    **{"best_of": None, "guided_decoding": None, "length_penalty": 1.0, "early_stopping": False},
}


def test_vllms_defaults_are_taken() -> None:
    assert SamplingParams(**VLLMS) == SamplingParams(max_tokens=16)
    assert SamplingParams.from_optional(**{**VLLMS, "temperature": None, "n": 2, "best_of": 2}) == SamplingParams(
        n=2, max_tokens=16
    )
    assert SamplingParams(output_kind="FINAL_ONLY", bad_words=(), logit_bias={}) == DEFAULTS
    assert SamplingParams(logit_bias={5: 1, "3": -2.5}, bad_words=["a", "b", "a"]) == SamplingParams(
        logit_bias=((3, -2.5), (5, 1.0)), bad_words=("a", "b")
    )


@pytest.mark.parametrize("name", sorted(neutral.CHECKS.keys() - CHAT_FIELDS - {"tool_choice"}))  # of chats
def test_rows_and_python_take_the_same_values(name: str) -> None:
    """One table: whatever a row may have, parameters may be made from, and the other way round."""
    for value in (None, 0, 0.0, 1, 1.0, True, False, "", "none", "auto", [], {}, {"type": "text"}, ["text"], 0.5, "x"):
        found = []
        for make in (partial(SamplingParams, **{name: value}), partial(code_of, {name: value})):
            try:
                found.append(make())
            except InvalidRequest as error:
                found.append((error.code, error.param))
        assert found[0] == found[1], value


def code_of(fields: dict[str, Any]) -> SamplingParams:
    return params_from_body(fields, PLAIN, DEFAULTS, None)


def test_what_asks_for_something_is_refused_by_name() -> None:
    for name, value in (
        *(("extra_args", object()), ("length_penalty", 2.0)),
        *(("guided_decoding", object()), ("output_kind", "DELTA"), ("best_of", 2)),
    ):
        with pytest.raises(InvalidRequest) as caught:
            SamplingParams(**{name: value})
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", name) and name in str(caught.value)
    with pytest.raises(TypeError, match=r"no keyword 'temprature' \(did you mean 'temperature'\?\)"):
        SamplingParams(temprature=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        SamplingParams(*range(31))  # type: ignore[arg-type]


def test_clones_differ_in_what_was_changed() -> None:
    params = SamplingParams(temperature=0.5, stop=("x",))
    assert params.clone() == params and params.clone(seed=5) == SamplingParams(temperature=0.5, stop=("x",), seed=5)
    with pytest.raises(InvalidRequest):
        params.clone(n=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.n = 2  # type: ignore[misc]

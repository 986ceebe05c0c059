"""`LLM`: the ways in, the shape of what comes out, and what is refused before any work."""

from __future__ import annotations

import inspect
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.dense import greedy
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.errors import InvalidRequest, ModelError, UsageError
from umbel.ir.chat import Chat
from umbel.ir.params import SamplingParams
from umbel.kernels.native.calls import INSTRUCTION_SETS

GREEDY = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("api") / "model", "qwen3", seed=1)


@pytest.mark.parametrize(
    "options", [{"dtype": "bfloat16"}, {"dtype": "bfloat16", "linear": "int8", "allow_lossy": True}]
)
def test_a_model_with_odd_numbers_of_inputs(options: dict[str, Any], tmp_path: Path):
    """Compiled products read two or four inputs at once."""
    if "linear" in options and not INSTRUCTION_SETS:
        pytest.skip("nothing was compiled")
    directory = make_model(tmp_path, "mistral", hidden_size=61, intermediate_size=171)
    llm = LLM(str(directory), device="cpu", threads=1, **options)
    (answer,) = llm.generate([[5, 6, 7]], GREEDY)
    assert answer.error is None
    assert len(answer.outputs[0].token_ids) == 6


@pytest.fixture(scope="module")
def llm(directory: Path) -> LLM:
    return LLM(str(directory), dtype="float32", device="cpu", threads=1)


def test_an_unknown_option_is_refused_before_the_model_is_read() -> None:
    with pytest.raises(UsageError, match="did you mean 'kv_tokens'"):
        LLM("/no/such/model", kv_token=5)


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ModelError, match="/no/such/model"):
        LLM("/no/such/model")


def test_a_device_that_is_not_here_is_refused(directory: Path) -> None:
    for device in ("cuda:99", "tpu", "meta"):
        with pytest.raises(UsageError, match="device="):
            LLM(str(directory), device=device)


def test_greedy_tokens_are_those_of_a_dense_forward(llm: LLM) -> None:
    prompts = [[9, 4, i] for i in range(3, 9)]
    for prompt, output in zip(prompts, llm.generate(prompts, GREEDY), strict=True):
        assert list(output.outputs[0].token_ids) == greedy(llm.engine.model.decoder, prompt, 6)


def test_every_way_to_give_a_prompt(llm: LLM) -> None:
    text = "the quick brown fox"
    (ids,) = llm.tokenizer.encode([text])
    wanted = llm.generate([ids], GREEDY)[0].outputs
    ways = [text, ids, tuple(ids), np.array(ids), list(np.array(ids)), {"prompt": text}, {"prompt_token_ids": ids}]
    for output in llm.generate([*ways, {"prompt": ids}], GREEDY):
        assert output.error is None and output.prompt_token_ids == ids and output.outputs == wanted
    for single in (text, ids, np.array(ids), {"prompt": text}):
        (output,) = llm.generate(single, GREEDY)
        assert output.outputs == wanted


def test_chats(llm: LLM) -> None:
    conversation = [{"role": "user", "content": "Classify the text"}]
    (ids,) = llm.tokenizer.encode_chat([Chat(conversation)])
    wanted = llm.generate([ids], GREEDY)[0].outputs
    assert [o.outputs for o in llm.chat(conversation, GREEDY)] == [wanted]
    assert [o.outputs for o in llm.chat([conversation, conversation], GREEDY)] == [wanted, wanted]
    assert llm.generate([{"messages": conversation}], GREEDY)[0].outputs == wanted
    good, bad = llm.chat([conversation, "hello"], GREEDY)
    assert good.outputs == wanted and bad.error is not None


@pytest.mark.parametrize("message", [{"role": "user"}, {"role": "wizard", "content": "x"}, {"content": "x"}], ids=str)
def test_a_bad_message_is_an_error_row(llm: LLM, message: dict[str, str]) -> None:
    good = [{"role": "user", "content": "Classify the text"}]
    first, second = llm.chat([good, [message]], GREEDY)
    assert first.error is None and second.error is not None


def test_results_have_vllms_shape(llm: LLM) -> None:
    (output,) = llm.generate(["the weather"], replace(GREEDY, n=1, logprobs=1))
    assert output.request_id == "0" and output.prompt == "the weather" and output.finished and output.error is None
    (completion,) = output.outputs
    assert completion.index == 0 and completion.finish_reason == "length" and completion.stop_reason is None
    assert completion.text == llm.tokenizer.decode(completion.token_ids)
    assert completion.cumulative_logprob is not None and completion.cumulative_logprob < 0


def test_params_for_all_or_for_each(llm: LLM) -> None:
    each = [replace(GREEDY, max_tokens=k) for k in (1, 2, 3)]
    assert [len(o.outputs[0].token_ids) for o in llm.generate([[5], [6], [7]], each)] == [1, 2, 3]
    with pytest.raises(UsageError, match="2 prompts but 3 sampling params"):
        llm.generate([[5], [6]], each)


def test_the_defaults_sample_at_temperature_one_to_the_context_end(directory: Path) -> None:
    first, again = (
        LLM(str(directory), dtype="float32", device="cpu", threads=1, seed=4).generate([[5] * 480])[0].outputs[0]
        for _ in range(2)
    )
    assert first == again and 0 < len(first.token_ids) <= 32
    other = LLM(str(directory), dtype="float32", device="cpu", threads=1, seed=5).generate([[5] * 480])
    assert other[0].outputs[0].token_ids != first.token_ids, "the engine's seed is that of rows without one"


def test_a_stop_token_that_the_model_does_not_have_is_an_error_row(llm: LLM) -> None:
    """The row alone fails, and names the field; an id within the vocabulary is none."""
    width = llm.spec.vocab_size
    params = [replace(GREEDY, stop_token_ids=(id,)) for id in (width, 2**31 - 1, width - 1)]
    over, far, fine = llm.generate([[5, 6]] * 3, params)
    assert [o.error and (o.error.code, o.error.param) for o in (over, far, fine)] == [
        ("invalid_token_id", "stop_token_ids"),
        ("invalid_token_id", "stop_token_ids"),
        None,
    ]
    assert str(width) in over.error.message and len(fine.outputs) == 1


def test_nothing_in_nothing_out(llm: LLM) -> None:
    assert llm.generate([], GREEDY) == []
    assert [o.error.code for o in llm.generate([[], [-1]], GREEDY) if o.error] == ["empty_prompt", "invalid_token_id"]


def test_it_is_known_when_the_first_token_was_there(directory: Path) -> None:
    fresh, began = LLM(str(directory)), time.monotonic()
    assert fresh.first_token is None
    fresh.generate(["a b"], SamplingParams(max_tokens=3))
    first = fresh.first_token
    assert first is not None
    fresh.generate(["a b"], SamplingParams(max_tokens=3))
    assert began < first == fresh.first_token < time.monotonic()


def test_stream_is_lazy_and_a_generator(llm: LLM) -> None:
    steps = llm.stats().steps
    stream = llm.stream([[5, 6]], GREEDY)
    assert inspect.isgenerator(stream) and llm.stats().steps == steps
    assert len(list(stream)) == 1 and llm.stats().steps > steps


def test_a_model_without_tokenizer_takes_ids_only(tmp_path: Path) -> None:
    directory = make_model(tmp_path / "bare", "llama")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).unlink()
    llm = LLM(str(directory), dtype="float32", device="cpu", threads=1)
    (output,) = llm.generate([[5, 6]], GREEDY)
    assert len(output.outputs[0].token_ids) == 6 and output.outputs[0].text == ""
    (refused,) = llm.generate([[5, 6]], replace(GREEDY, stop=("x",)))
    assert refused.error is not None and refused.error.code == "unsupported_parameter"
    with pytest.raises(UsageError, match=r"no tokenizer\.json"):
        llm.generate(["text"], GREEDY)


def test_dummy_weights_are_seeded(tmp_path: Path) -> None:
    directory = make_model(tmp_path / "dummy", "llama")
    (directory / "model.safetensors").unlink()
    options = {"dtype": "float32", "device": "cpu", "threads": 1, "load_format": "dummy"}
    params = replace(GREEDY, logprobs=0)
    one, same, other = (LLM(str(directory), seed=s, **options).generate([[5, 6]], params) for s in (1, 1, 2))
    assert one[0].outputs == same[0].outputs and one[0].outputs != other[0].outputs


def test_a_loaded_model_s_plan_says_that_nobody_asked_for_its_dtype(directory: Path, llm: LLM) -> None:
    assert llm.plan([[1, 2, 3]]).decision("dtype").reason == "as asked"
    derived = LLM(str(directory), device="cpu", threads=1).plan([[1, 2, 3]]).decision("dtype")
    assert (derived.value, derived.reason) == ("float32", "the model's own")


def test_a_plan_runs_nothing(llm: LLM) -> None:
    steps = llm.stats().steps
    plan = llm.plan([[5, 6, 7], [5, 6, 8], [5, 6, 8]], GREEDY)
    # Two tokens are shared: whether that pays is a question of this machine's prices.
    assert plan.estimates.rows == 3 and plan.estimates.computed_prompt_tokens in (4, 6)
    assert plan.estimates.duplicate_rows == 1 and llm.stats().steps == steps


def test_wrong_params_are_refused_where_they_are_made() -> None:
    for wrong in ({"n": 0}, {"temperature": -1}, {"top_p": 0}, {"min_tokens": 9, "max_tokens": 3}, {"stop": ("",)}):
        with pytest.raises(InvalidRequest) as error:
            SamplingParams(**wrong)
        assert error.value.code == "invalid_value" and error.value.param in wrong


ODD_PROMPTS: list[Any] = [
    *(b"bytes", bytearray(b"x"), [["a"]], ("a", "b"), {}, {"prompt": b"x"}, {"prompt": None}, {"prompt": {}}, [1.5]),
    *({5, 6}, float("nan"), None, object(), np.array([5.0]), {"messages": "hi"}, [True], [2**70], [-1], range(0)),
]


@pytest.mark.parametrize("odd", ODD_PROMPTS, ids=lambda odd: type(odd).__name__)
def test_an_odd_prompt_is_an_error_of_its_own(odd: Any, llm: LLM):
    first, refused, last = llm.generate([[5, 6, 7], odd, [5, 6, 7]], GREEDY)
    assert refused.error is not None and refused.outputs == ()
    assert first.error is None and first.outputs[0].token_ids == last.outputs[0].token_ids


def test_prompts_of_a_generator_and_of_numbers_of_any_kind(llm: LLM):
    odd = [[np.int64(5), np.int32(6)], range(5, 7), np.array([5, 6]), (5, 6)]
    answers = llm.generate((prompt for prompt in odd), GREEDY)
    assert len({answer.outputs[0].token_ids for answer in answers}) == 1


@pytest.mark.parametrize("prompts", [7, None, {"a", "b"}])
def test_what_is_no_list_of_prompts_is_refused(prompts: Any, llm: LLM):
    with pytest.raises(UsageError, match="give a list"):
        llm.generate(prompts, GREEDY)

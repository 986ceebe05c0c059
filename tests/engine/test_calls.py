"""Calls as scripts for vLLM make them: its keywords, prompts and fields of answers, which are written by hand here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.engine import progress_line
from umbel.errors import InvalidRequest, RowFailed, UsageError
from umbel.ir.params import SamplingParams
from umbel.plan.explain.text import explain

GREEDY = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    directory = make_model(tmp_path_factory.mktemp("calls") / "model", "qwen3", seed=1)
    with LLM(str(directory), dtype="float32", device="cpu", threads=1) as made:
        yield made


def test_vllms_keywords(llm: LLM) -> None:
    wanted = llm.generate(["a b", "c d"], GREEDY)
    neutral = {"lora_request": None, "priority": None, "tokenization_kwargs": None}
    found = llm.generate(prompts=["a b", "c d"], sampling_params=GREEDY, use_tqdm=False, **neutral)
    assert found == wanted
    assert llm.generate((text for text in ["a b", "c d"]), sampling_params=GREEDY) == wanted
    as_fields = {"temperature": 0.0, "max_tokens": 4, "ignore_eos": True}
    assert llm.generate(["a b", "c d"], as_fields) == wanted == llm.generate(["a b", "c d"], [as_fields, GREEDY])


def test_vllms_keywords_of_chats(llm: LLM) -> None:
    chat = [{"role": "user", "content": "Classify the text"}]
    neutral: dict[str, Any] = {
        "lora_request": None,
        "chat_template": None,
        "add_generation_prompt": True,
        "tools": None,
    }
    neutral |= {"chat_template_kwargs": {}, "continue_final_message": False, "chat_template_content_format": "auto"}
    (found,) = llm.chat(messages=chat, sampling_params=GREEDY, use_tqdm=False, **neutral)
    assert found.prompt == llm.tokenizer.render(chat) and llm.tokenizer.encode_rendered([found.prompt]) == [
        found.prompt_token_ids
    ]
    assert llm.chat((one for one in [chat, chat]), GREEDY)[1].outputs == found.outputs


@pytest.mark.parametrize(
    ("call", "keyword", "value"),
    [
        ("chat", "chat_template", "{{ messages }}"),
        ("chat", "chat_template_kwargs", {"chat_template": "{{ messages }}"}),
    ],
)
def test_what_a_call_cannot_do_is_refused_by_name(llm: LLM, call: str, keyword: str, value: Any) -> None:
    steps = llm.stats().steps
    with pytest.raises(InvalidRequest, match=keyword) as error:
        getattr(llm, call)([[{"role": "user", "content": "x"}]], GREEDY, **{keyword: value})
    assert error.value.code == "unsupported_parameter" and llm.stats().steps == steps


def test_what_the_template_is_given_beside_messages(llm: LLM) -> None:
    chat = [{"role": "user", "content": "Add 12 + 30"}]
    (whole,) = llm.chat(chat, GREEDY)
    begun = [*chat, {"role": "assistant", "content": "It is "}]
    (rest,) = llm.chat(begun, GREEDY, continue_final_message=True)
    assert rest.error is None and rest.prompt == (whole.prompt or "") + "It is "
    (closed,) = llm.chat(chat, GREEDY, add_generation_prompt=False)
    assert (whole.prompt or "").startswith(closed.prompt or "") and closed.prompt != whole.prompt
    (refused,) = llm.chat(chat, GREEDY, tools=[{"type": "function", "function": {"name": "f"}}])
    assert refused.error is not None and (refused.error.code, refused.error.param) == ("unsupported_parameter", "tools")
    with pytest.raises(InvalidRequest, match="must be false"):
        llm.chat(begun, GREEDY, continue_final_message=True, add_generation_prompt=True)


def test_keywords_that_no_engine_has(llm: LLM) -> None:
    with pytest.raises(TypeError, match=r"no keyword 'sampling_param' \(did you mean 'sampling_params'\?\)"):
        llm.generate(["a"], sampling_param=GREEDY)


def test_parts_of_prompts_that_would_not_be_read_are_refused(llm: LLM) -> None:
    """A picture is not passed over; nothing is asked for by a part that is empty."""
    odd: list[Any] = [
        {"prompt": "a", "multi_modal_data": {"image": object()}},
        {"prompt_token_ids": [5], "prompt_embeds": [1.0]},
        {"prompt": "a", "max_tokens": 3},
        {"prompt": "a", "messages": [{"role": "user", "content": "x"}]},
        {"prompt": "a", "multi_modal_data": None, "mm_processor_kwargs": {}},
        {"prompt_token_ids": [5, 6], "prompt": "what they say"},
    ]
    found = llm.generate(odd, GREEDY)
    assert [o.error and (o.error.code, o.error.param) for o in found] == [
        ("unsupported_parameter", "multi_modal_data"),
        ("unsupported_parameter", "prompt_embeds"),
        ("unsupported_parameter", "max_tokens"),
        ("invalid_value", "prompt"),
        None,
        None,
    ]
    assert found[5].prompt == "what they say" and found[5].prompt_token_ids == [5, 6]
    (scores,) = llm.score([odd[0]], ["x"])
    assert scores[0].error is not None and scores[0].error.param == "multi_modal_data"


def test_answers_have_vllms_fields(llm: LLM) -> None:
    (output,) = llm.generate(["the weather"], GREEDY.clone(n=2, logprobs=2, prompt_logprobs=1))
    assert (output.request_id, output.prompt, output.finished) == ("0", "the weather", True)
    for name in ("metrics", "lora_request", "encoder_prompt", "encoder_prompt_token_ids", "num_cached_tokens"):
        assert getattr(output, name) is None
    assert all(isinstance(one, umbel.CompletionOutput) for one in output.outputs)
    for place, entry in enumerate(output.outputs[0].logprobs or ()):
        token = output.outputs[0].token_ids[place]
        ids = [id for id, _ in entry.top]
        assert list(entry) == [token, *(id for id in ids if id != token)] and len(entry) == len(list(entry))
        assert entry[token].logprob == entry.logprob and entry[token].rank == 1, "greedy"
        assert [entry[id].rank for id in ids] == [1, 2] and [entry[id].logprob for id in ids] == [
            p for _, p in entry.top
        ]
        assert entry[token].decoded_token == llm.tokenizer.token_bytes([token])[0].decode("utf-8", "replace")
        assert -1 not in entry and {id: lp.logprob for id, lp in entry.items()} == dict(entry.top)
    assert output.prompt_logprobs is not None and output.prompt_logprobs[0] is None
    second = output.prompt_logprobs[1]
    assert second is not None and second[output.prompt_token_ids[1]].decoded_token is not None


def test_a_token_from_behind_those_asked_for_has_no_rank(llm: LLM) -> None:
    (output,) = llm.generate([[5, 6]], SamplingParams(temperature=50.0, max_tokens=8, logprobs=1, seed=3))
    beyond = [e for e in output.outputs[0].logprobs or () if e.token_id != e.top[0][0]]
    assert beyond and all(e[e.token_id].rank is None and len(e) == 2 and e[e.top[0][0]].rank == 1 for e in beyond)


def test_a_failed_row_says_so_where_its_answer_is_asked_for(llm: LLM) -> None:
    good, bad = llm.generate(["a b", []], GREEDY)
    assert good.error is None and bad.outputs == () and not bad.outputs and list(bad.outputs) == []
    with pytest.raises(RowFailed, match=r"prompt 1 has no answer: empty_prompt: the prompt has no.*on_error") as error:
        print(bad.outputs[0].text)
    assert isinstance(error.value, IndexError)


def test_errors_are_raised_on_request_before_anything_runs(llm: LLM) -> None:
    steps = llm.stats().steps
    with pytest.raises(InvalidRequest, match="prompt 1: the prompt has no tokens") as error:
        llm.generate(["a b", []], GREEDY, on_error="raise")
    assert error.value.code == "empty_prompt" and llm.stats().steps == steps
    assert llm.generate(["a b"], GREEDY, on_error="raise") == llm.generate(["a b"], GREEDY)
    with pytest.raises(UsageError, match="on_error='ignore'"):
        llm.generate(["a b"], GREEDY, on_error="ignore")  # type: ignore[arg-type]


def test_sampling_goes_on_between_calls_and_seeds_repeat(llm: LLM) -> None:
    free, seeded = (
        SamplingParams(max_tokens=12, ignore_eos=True),
        SamplingParams(max_tokens=12, ignore_eos=True, seed=7),
    )
    assert len({llm.generate(["hi"], free)[0].outputs[0].token_ids for _ in range(3)}) == 3
    alone = llm.generate(["hi"], seeded)[0].outputs
    assert [o.outputs for o in llm.generate(["x y", "hi", "hi"], seeded)][1:] == [alone, alone]


class Bar:
    """A progress bar as tqdm makes one."""

    def __init__(self, total: float, desc: str):
        self.total, self.done, self.closed = total, 0.0, False
        Bar.last = self

    def update(self, n: float) -> None:
        self.done += n

    def close(self) -> None:
        self.closed = True


def test_a_bar_of_the_caller_s(llm: LLM) -> None:
    llm.generate(["a", "b", "c"], GREEDY, use_tqdm=Bar)
    assert (Bar.last.total, Bar.last.done, Bar.last.closed) == (3, 3, True)


def test_progress_is_shown_where_it_was_asked_for(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    llm.generate(["a", "b"], GREEDY)
    assert capsys.readouterr().err == "", "no terminal"
    llm.generate(["a", "b"], GREEDY, use_tqdm=True)
    assert re.fullmatch(r"2/2 prompts · 8 tokens · \S+ m?s\n", capsys.readouterr().err)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    llm.generate(["a", "b"], GREEDY, use_tqdm=False)
    llm.generate(["a", "b"], GREEDY)
    assert capsys.readouterr().err == "\r\x1b[K", "it took less than two seconds"
    monkeypatch.setattr(progress_line, "PATIENCE", 0.0)
    llm.generate(["a", "b"], GREEDY)
    told = capsys.readouterr().err
    assert "2/2 prompts · 8 tokens" in told and told.endswith("\r\x1b[K")


def test_how_far_loading_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every weight is counted once; nothing is shown unless it was asked for, and on a terminal not of a quick one."""
    model = str(make_model(tmp_path / "model", "qwen3"))
    monkeypatch.setattr(progress_line, "PATIENCE", 1e9)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    LLM(model, device="cpu").close()
    assert capsys.readouterr().err == ""
    LLM(model, device="cpu", use_tqdm_on_load=None).close()
    assert capsys.readouterr().err == "\r\x1b[K"
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    LLM(model, device="cpu", use_tqdm_on_load=True).close()
    assert re.fullmatch(r"loading the model, 100% · \S+ m?s\n", capsys.readouterr().err)
    LLM(model, device="cpu", use_tqdm_on_load=Bar).close()
    assert Bar.last.total == 1.0 and Bar.last.closed and Bar.last.done == pytest.approx(1.0)


def test_names_beside_the_calls(llm: LLM) -> None:
    assert llm.get_default_sampling_params() == SamplingParams()
    assert re.match(r"\d+\.\d+", umbel.__version__) and not hasattr(umbel, "no_such_name")


def test_a_model_without_tokenizer_names_no_tokens(tmp_path: Path) -> None:
    directory = make_model(tmp_path / "bare", "llama")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).unlink()
    with LLM(str(directory), dtype="float32", device="cpu", threads=1) as bare:
        (output,) = bare.generate([[5, 6]], GREEDY.clone(logprobs=1))
    entry = (output.outputs[0].logprobs or ())[0]
    assert entry[entry.token_id].decoded_token is None


def test_a_plan_prints_as_the_command_prints_it(llm: LLM) -> None:
    plan = llm.plan(["the same words", "the same words more"], GREEDY)
    lines = repr(plan).splitlines()
    assert len(lines) <= 12 and "2 rows" in lines[0] and repr(plan) == str(plan)
    assert plan.explain() == explain(plan) and "decisions" in plan.explain()
    page = plan._repr_html_()
    assert page.startswith("<iframe srcdoc=") and "&lt;svg" in page and "<svg" not in page


def test_the_tokenizer_under_the_names_of_transformers(llm: LLM) -> None:
    """Held to transformers itself, over the same files."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(str(llm.config.model))
    ours, chat = llm.get_tokenizer(), [{"role": "user", "content": "Classify the text"}]
    ids = theirs.encode("the weather is fine")
    assert ours.encode("the weather is fine") == ids and ours.decode(ids) == theirs.decode(ids)
    assert ours.encode("fine", add_special_tokens=False) == theirs.encode("fine", add_special_tokens=False)
    assert ours.batch_decode([ids, ids[:1]]) == theirs.batch_decode([ids, ids[:1]])
    assert (len(ours), ours.eos_token_id) == (len(theirs), theirs.eos_token_id)
    for tokenize in (True, False):
        for opens in (True, False):
            wanted = theirs.apply_chat_template(chat, tokenize=tokenize, add_generation_prompt=opens)
            wanted = wanted["input_ids"] if isinstance(wanted, transformers.BatchEncoding) else wanted
            assert ours.apply_chat_template(chat, tokenize=tokenize, add_generation_prompt=opens) == wanted
    with pytest.raises(InvalidRequest, match="chat_template"):
        ours.apply_chat_template(chat, tokenize=False, chat_template="{{ messages }}")
    with pytest.raises(AttributeError, match="AutoTokenizer reads the same files"):
        ours.pad(ids)

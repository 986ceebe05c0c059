"""Programs that speak OpenAI's language, each run to its end against a server: what docs/serve.md shows of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import listening
from umbel.api import LLM
from umbel.ir.params import SamplingParams
from umbel.serve.batches import shared_engine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of the clients and what they import
]
TEXTS = ["one two", "three", "four five six", "one two three", "seven"]
GREEDY = SamplingParams(temperature=0, max_tokens=5)


@pytest.fixture(scope="module")
def server(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    names = "tiny", "gpt-4o"  # inspect_ai takes unknown names for models that have no temperature
    with listening(llm, store=tmp_path_factory.mktemp("store"), names=names) as url:
        yield url


@pytest.fixture
def chats(llm: LLM) -> list[str]:
    """The answers to the texts as chats."""
    asked = [[{"role": "user", "content": text}] for text in TEXTS]
    return [one.outputs[0].text for one in llm.chat(asked, GREEDY, use_tqdm=False)]


@pytest.fixture
def texts(llm: LLM) -> list[str]:
    """The answers to the texts as they are."""
    return [one.outputs[0].text for one in llm.generate(TEXTS, GREEDY, use_tqdm=False)]


@pytest.mark.parametrize("responses", [False, True])
def test_inspect_evaluates_by_batches(
    server: str, chats: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, responses: bool
) -> None:
    inspect_ai = pytest.importorskip("inspect_ai", reason="inspect_ai is not installed")
    from inspect_ai.dataset import Sample
    from inspect_ai.model import BatchConfig, GenerateConfig, get_model
    from inspect_ai.scorer import exact

    monkeypatch.setattr(shared_engine, "LOOK_SECONDS", 0.01)
    config = GenerateConfig(
        temperature=0, max_tokens=5, batch=BatchConfig(size=5, send_delay=0.5, tick=0.1), max_connections=10
    )
    model = get_model("openai/gpt-4o", base_url=f"{server}/v1", api_key="none", responses_api=responses, config=config)
    dataset = [Sample(input=text, target=answer) for text, answer in zip(TEXTS, chats, strict=True)]
    task = inspect_ai.Task(dataset=dataset, scorer=exact())
    (log,) = inspect_ai.eval(task, model=model, log_dir=str(tmp_path), display="none")
    assert log.status == "success"
    assert [sample.output.completion for sample in log.samples] == chats
    import openai

    with openai.OpenAI(base_url=f"{server}/v1", api_key="none") as client:
        made = [one for one in client.batches.list() if one.endpoint.endswith("responses" if responses else "tions")]
    assert made and all(one.status == "completed" for one in made)


def test_litellm_chats_streams_and_embeds(
    server: str, chats: list[str], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would be fetched
    litellm = pytest.importorskip("litellm", reason="litellm is not installed")
    asked: dict[str, Any] = {"model": "hosted_vllm/tiny", "api_base": f"{server}/v1", "temperature": 0, "max_tokens": 5}
    for text, answer in zip(TEXTS, chats, strict=True):
        said = [{"role": "user", "content": text}]
        assert litellm.completion(messages=said, **asked).choices[0].message.content == answer
        pieces = litellm.completion(messages=said, stream=True, **asked)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == answer
    found = litellm.text_completion(
        prompt=TEXTS[0], **asked | {"model": "text-completion-openai/tiny", "api_key": "no"}
    )
    assert found.choices[0].text == texts[0]
    many = litellm.batch_completion(messages=[[{"role": "user", "content": text}] for text in TEXTS], **asked)
    assert [one.choices[0].message.content for one in many] == chats


def test_lm_eval_scores_as_in_the_process(
    server: str, llm: LLM, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from umbel.harness.model import UmbelLM

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    rows = [{"question": text, "choices": ["red", "two", "blue sky"], "answer": i % 3} for i, text in enumerate(TEXTS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}}}
    choices = {"doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}", "metric_list": [{"metric": "acc"}]}
    until = {"until": ["\n"], "max_gen_toks": 5, "do_sample": False, "temperature": 0.0}
    kinds: dict[str, dict[str, Any]] = {
        "scored": {"output_type": "multiple_choice", **choices},
        "written": {
            "output_type": "generate_until",
            "doc_to_target": "{{question}}",
            "generation_kwargs": until,
            "metric_list": [{"metric": "exact_match"}],
        },
    }
    for name, kind in kinds.items():
        task = {"task": name, "test_split": "test", "doc_to_text": "{{question}}", **data, **kind}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(task))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    asked = {"model": "tiny", "base_url": f"{server}/v1/completions", "tokenizer": str(directory), "num_concurrent": 3}
    how: dict[str, Any] = {"tasks": list(kinds), "task_manager": manager, "bootstrap_iters": 0, "log_samples": True}
    found = [
        simple_evaluate(model="local-completions", model_args=asked, **how),
        simple_evaluate(model=UmbelLM(str(directory), dtype="float32"), **how),
    ]
    for name in kinds:
        resps = [[sample["resps"] for sample in one["samples"][name]] for one in found]
        for one, other in zip(*resps, strict=True):
            for (served,), (local,) in zip(one, other, strict=True):
                if name == "written":
                    assert served == local
                else:
                    assert served[0] == pytest.approx(local[0], abs=1e-4) and bool(served[1]) == bool(local[1])


def test_a_dataset_is_mapped(server: str, texts: list[str], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    import openai

    with openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:

        def answered(rows: dict[str, list[str]]) -> dict[str, list[str]]:
            found = client.completions.create(model="tiny", prompt=rows["text"], temperature=0, max_tokens=5)
            return {"answer": [choice.text for choice in found.choices]}

        table = datasets.Dataset.from_dict({"text": TEXTS})
        mapped = table.map(
            answered, batched=True, batch_size=3, new_fingerprint="a", cache_file_name=str(tmp_path / "c.arrow")
        )
    assert mapped["answer"][:] == texts

"""Rows that list which techniques of a job they take: as lines, in a session, as choices, and refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import make_model
from umbel import LLM, SamplingParams, run
from umbel.errors import InvalidRequest
from umbel.ir.params import SamplingParams as Params
from umbel.ir.pooling import PoolingParams
from umbel.ir.row_techniques import ALL_ROWS, RowTechniques
from umbel.ir.workload import ADAPTER, TENANT, WHOLE_ANSWERS, WHOLE_PROMPTS, Workload
from umbel.registry import for_rows
from umbel.sched.lot import Standing

PAGES, SLASH, KEEPER = "pages:budget=0.1", "vertical-slash:budget=0.2", "sink-window:window=30"
BOTH = RowTechniques(for_rows("technique", (PAGES, SLASH)))
LONG = [j * 7 % 290 + 3 for j in range(900)]
TEXT = " ".join(f"line {i} is {i * 7 % 83}" for i in range(30))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("rows") / "model", "qwen3", max_position_embeddings=2048)


@pytest.mark.parametrize(
    ("listed", "prompts", "answers"),
    [
        (None, False, False),
        ([], True, True),
        (["pages"], True, False),
        ([SLASH], False, True),
        (["vertical-slash", PAGES], False, False),
    ],
)
def test_a_row_takes_all_or_what_it_lists(listed: list[str] | None, prompts: bool, answers: bool) -> None:
    params = Params(techniques=listed)
    BOTH.check(params)
    assert (BOTH.leaves(params, prompts=True), BOTH.leaves(params, prompts=False)) == (prompts, answers)
    load = Workload.of([[1, 2]], params)
    scope = BOTH.keep_apart(BOTH.put_apart(load)).scope
    assert (0 if scope is None else scope.item()) == prompts * WHOLE_PROMPTS + answers * WHOLE_ANSWERS


def test_rows_that_compute_prompts_in_two_ways_share_none_and_others_do() -> None:
    params = [Params(techniques=listed) for listed in (None, [], ["pages"], ["vertical-slash"])]
    load = BOTH.put_apart(Workload.of([[1, 2]] * 4, params, scope=[3, 3, 3, 3]))
    assert load.scope is not None and (load.scope & ADAPTER == 3).all()
    assert [number != 3 for number in load.scope.tolist()] == [False, True, True, False]
    owned = Standing.alike(4, tenant=5).apart(load)
    assert owned.scope is not None and (owned.scope // TENANT == 5).all()
    keeper = RowTechniques(for_rows("technique", (KEEPER,)))  # what is forgotten is the samples' own
    assert keeper.put_apart(load) is load and keeper.leaves(params[1], prompts=False)


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        (["hip"], "techniques has 'hip': there are pages:budget=0.1, vertical-slash:budget=0.2"),
        (["pages:budget=0.5"], "techniques has 'pages:budget=0.5'"),
        ("pages", "must be a list of names"),
        ([3], "must be a list of names"),
        (["pages"] * 17, "17 entries: at most 16"),
    ],
)
def test_what_a_row_cannot_list_is_refused_by_name(listed: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        BOTH.check(Params(techniques=listed))


def test_an_engine_without_any_refuses_names_and_takes_none_for_an_answer() -> None:
    ALL_ROWS.check(Params(techniques=[]))
    with pytest.raises(InvalidRequest, match=r"there is none; --technique NAME with --allow-lossy gives it to a job"):
        ALL_ROWS.check(Params(techniques=["pages"]))
    assert Params(techniques=[], pooling_params=PoolingParams()).techniques == ()  # vectors have a prompt, too


def test_a_flow_is_for_all_rows() -> None:
    flow = RowTechniques(for_rows("technique", ("swiftkv",)))
    for listed in (None, ["swiftkv"]):
        flow.check(Params(techniques=listed))
    with pytest.raises(InvalidRequest, match=r"techniques=\[\]: all rows of a job are computed as 'swiftkv' says"):
        flow.check(Params(techniques=[]))
    assert not flow.leaves(Params(techniques=[]), prompts=True) | flow.leaves(Params(techniques=[]), prompts=False)


def test_lines_of_a_job_list_them(tmp_path: Path) -> None:
    """One line takes what the job has, one says so, others have the answers of a job without it."""
    kinds: dict[str, Any] = {"all": None, "named": ["sink-window"], "none": [], "wrong": ["pages"]}
    usual = {"max_tokens": 5, "temperature": 0, "ignore_eos": True, "logprobs": 0}
    rows = [{"custom_id": name, "prompt": TEXT, "techniques": listed, **usual} for name, listed in kinds.items()]
    choice = {"prompt": TEXT, "choices": [" 1", " 2"]}
    rows += [choice | {"techniques": ["pages"]}, choice | {"techniques": []}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = {"model": "demo", "speculate": "off", "dtype": "float32", "device": "cpu"}
    found = run(str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), technique=KEEPER, allow_lossy=True, **asked)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    answers = {line["custom_id"]: line for line in lines[:4]}
    assert found.failed == 2 and "there are sink-window" in answers["wrong"]["error"]["message"]
    assert "techniques has 'pages'" in lines[4]["error"]["message"] and lines[5]["choice"]
    plain = LLM(**asked).generate([TEXT], SamplingParams(max_tokens=5, temperature=0.0, ignore_eos=True, logprobs=0))
    every, named, none = (answers[name]["logprobs"] for name in ("all", "named", "none"))
    assert every == named != none
    (completion,) = plain[0].outputs
    assert list(completion.token_ids) == answers["none"]["token_ids"]


def test_a_session_gives_no_row_what_another_drew_by_another_technique(model: Path) -> None:
    """What was drawn with a selector stays for rows that take it; a row that does not computes its own."""
    params = SamplingParams(max_tokens=40, temperature=0.0, ignore_eos=True, logprobs=0)
    options: dict[str, Any] = {"device": "cpu", "dtype": "float32", "kv_tokens": 4096, "speculate": "off"}
    selected, plain = LLM(str(model), technique=PAGES, allow_lossy=True, **options), LLM(str(model), **options)
    with selected.session() as session:
        session.add([LONG], params)
        first = next(event for event in session if event.kind == "finished").output.outputs[0]
        turn = [*LONG, *first.token_ids[:32], 5, 6, 7]
        session.add([turn], params.clone(techniques=[], max_tokens=3))
        session.close()
        (found,) = (event.output.outputs[0] for event in session if event.kind == "finished")
    (wanted,) = plain.generate([turn], params.clone(max_tokens=3))[0].outputs
    assert (found.token_ids, found.cumulative_logprob) == (wanted.token_ids, wanted.cumulative_logprob)

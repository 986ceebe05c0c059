"""Eight rows on one run of 1,024 tokens, of which all or one are computed with a technique of attention: what each of
them reads is its own, what the run holds is what it holds for one row alone, and rows that leave the technique out have
the bytes of a job without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conformance.test_forget import ROWS as KEEPERS
from tests.conformance.test_forget import SMALL
from tests.conformance.test_select import EACH, ROWS, SHARE
from tests.tiny_models import make_model
from umbel import LLM, SamplingParams
from umbel.ir.plan import Fact
from umbel.ir.step import Step
from umbel.ir.workload import Workload
from umbel.kv.slots import path_slots
from umbel.runner.torch_runner import TorchRunner

SHARED, ROWS_BELOW, OWN, PAGE, ANSWER = 1024, 8, 140, 16, 6
TAKER = 2
ASKED = {name: f"{name}:{share}=0.3" for name, share in SHARE.items()}
ASKED |= {name: f"{name}:{SMALL.get(name, 'budget=0.25')}" for name in KEEPERS}
Taken = Sequence[Sequence[str] | None]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("selected") / "model", "qwen3", max_position_embeddings=2048)


class Ran:
    """An engine that has answered some rows, each with the techniques that it has `taken`: their tokens and
    log-probabilities, the keys that it skipped, the most pages that were in use, how often rows stepped back, and what
    the run holds in all layers that the last of the longest rows reads at last."""

    def __init__(self, model: Path, asked: str, prompts: Sequence[list[int]], taken: Taken = (), **options: int):
        usual: dict[str, Any] = {"speculate": "off", "device": "cpu", "dtype": "float32", "kv_tokens": 4096}
        usual |= {"technique": (asked,) if asked else (), "allow_lossy": True, "page_size": PAGE}
        self.llm = llm = LLM(str(model), **(usual | options))
        params = SamplingParams(max_tokens=ANSWER, temperature=0.0, ignore_eos=True, logprobs=0)
        self.params = [params.clone(techniques=one) for one in taken or [None] * len(prompts)]
        steps, start = list[Step](), TorchRunner.start
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TorchRunner, "start", lambda runner, step: (steps.append(step), start(runner, step))[1])
            stream = llm.stream(list(prompts), self.params)
            outputs = [next(stream)]
            loop = llm.engine.loops[0]
            outputs += stream
        answers = [output.outputs[0] for output in sorted(outputs, key=lambda output: int(output.request_id))]
        self.answers = [(answer.token_ids, answer.cumulative_logprob) for answer in answers]
        stats, scheduler, store = llm.engine.stats(), loop.scheduler, loop.runner.attention.store
        self.skipped, self.preemptions = stats.keys_whole - stats.keys_read, scheduler.preemptions
        self.peak_pages, step = scheduler.peak_pages, steps[-1]
        last, most = np.flatnonzero(step.end == step.end.max())[-1:], min(SHARED, int(step.end.max()))
        slots = torch.from_numpy(path_slots(step, last, np.arange(most)[None])[0])
        self.held = torch.stack([part[:, slots] for part in (*store.keys, *store.values)])


def prompts(rows: int) -> list[list[int]]:
    """Rows of one length that share their beginning; the first cell behind it is full."""
    shared = [j * 7 % 290 + 3 for j in range(SHARED)]
    return [[*shared, *((i * 31 + j * 5) % 290 + 3 for j in range(OWN))] for i in range(rows)]


@pytest.fixture(scope="module")
def dense(model: Path) -> Ran:
    return Ran(model, "", prompts(ROWS_BELOW))


@EACH
def test_rows_that_share_a_run_read_it_each_by_itself(name: str, model: Path, dense: Ran) -> None:
    asked = ASKED[name]
    some, alone = Ran(model, asked, prompts(ROWS_BELOW)), Ran(model, asked, prompts(1))
    assert torch.equal(some.held, alone.held) and some.answers[0] == alone.answers[0]
    if ROWS[name].rows == "answers":
        assert torch.equal(some.held, dense.held)
        assert some.skipped == ROWS_BELOW * alone.skipped > 0  # r rows that read a share p count r * p of the run


@pytest.mark.parametrize("name", ASKED)
def test_one_row_takes_a_technique_and_seven_do_not(name: str, model: Path, dense: Ran) -> None:
    """The seven are byte-identical to a job without it, and the one to a job in which all take it."""
    taken = [[name] if row == TAKER else [] for row in range(ROWS_BELOW)]
    mixed, alone = Ran(model, ASKED[name], prompts(ROWS_BELOW), taken), Ran(model, ASKED[name], prompts(TAKER + 1)[-1:])
    assert [mixed.answers[row] == dense.answers[row] for row in range(ROWS_BELOW)] == [row != TAKER for row in range(8)]
    assert mixed.answers[TAKER] == alone.answers[0] and torch.equal(mixed.held, dense.held)
    facts, pages = facts_of(mixed), mixed.peak_pages - dense.peak_pages
    if name in KEEPERS:
        memory = -(-facts["kept_tokens"] // PAGE)
        assert pages == memory - -(-OWN // PAGE)  # in place of its own tokens, while the run stays for the others
        assert facts["rows"] == 1 and facts["staying"] == SHARED and facts["shared_tokens"] == SHARED + OWN
    elif ROWS[name].rows == "prompts":
        assert pages == SHARED // PAGE  # of the run that is computed with the selector
    else:
        assert pages == 0 and mixed.skipped > 0
        assert facts["readers"] == 1 and facts["r_p"] == facts["share"] < 1


def facts_of(ran: Ran) -> Mapping[str, Fact]:
    """What the plan says of the rows that take a technique."""
    plan = ran.llm.plan_for(Workload.of(prompts(ROWS_BELOW), ran.params))
    return {
        name: fact
        for one in plan.decisions
        if one.name in ("keys read", "technique")
        for name, fact in one.facts.items()
    }


@pytest.mark.parametrize("name", ["pages", "vertical-slash", "h2o"])
def test_chunks_and_rows_that_step_back_change_nothing(name: str, model: Path, dense: Ran) -> None:
    taken = [[name] if row % 3 == 0 else [] for row in range(ROWS_BELOW)]
    all_take = Ran(model, ASKED[name], prompts(ROWS_BELOW))
    tight = Ran(model, ASKED[name], prompts(ROWS_BELOW), taken, kv_tokens=2400, chunk=300, admission="aggressive")
    wanted = [(all_take if row % 3 == 0 else dense).answers[row] for row in range(ROWS_BELOW)]
    assert tight.answers == wanted and all_take.answers[0] != dense.answers[0]

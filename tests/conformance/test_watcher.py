"""Every watcher of the catalogue: tokens may come together, steps may be decided ahead, other rows do not feel it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.drafters import Scripted
from tests.engine.test_ahead import PAGE, Ahead
from tests.packages import ROWS, TOYS, installed, write_package
from umbel import registry
from umbel.cache.pages import PagePool
from umbel.engine.loop import Loop
from umbel.engine.watch.base import Surroundings, Watcher
from umbel.engine.watch.watchers import Watchers
from umbel.ir.params import SamplingParams
from umbel.ir.request import Completion, Output
from umbel.ir.sampled import Drawing, SampledTokens
from umbel.ir.step import Step, StepResult
from umbel.ir.structured import StructuredOutputsParams
from umbel.ir.workload import Workload
from umbel.models.families import resolve_model
from umbel.plan.passes.prefix import build_forest
from umbel.runner.base import Runner, Wait, done
from umbel.runner.fake import FakeRunner
from umbel.sched.lot import Defaults, Lot
from umbel.sched.phases.speculate import Speculate
from umbel.sched.request_table import RequestTable
from umbel.sched.scheduler import Scheduler
from umbel.spec.base import Constant
from umbel.text.tokenizer import Tokenizer

TOY = "alternating"
EACH = pytest.mark.parametrize("name", dict.fromkeys([*registry.names("watcher"), TOY]))
TOKENIZER = Tokenizer.load(resolve_model("demo"))
PAIRS = [TOKENIZER.decode([first, last]) for first in (5, 33, 68, 90) for last in range(9, 300, 5)]
WORDS = tuple(word for word in PAIRS if word.strip())
DEFAULTS = Defaults(eos=(1,), width=300)


@pytest.fixture(autouse=True)
def toys(tmp_path: Path) -> Iterator[None]:
    """The watcher of another package is there too, by its entry point."""
    write_package(tmp_path, "umbel-toys", ROWS)
    with installed(tmp_path, TOYS):
        yield


def test_other_packages_come_last() -> None:
    assert registry.names("watcher") == (
        *("min-tokens", "allowed-tokens", "bad-words", "endings", "loops", "stop-strings"),
        *("grammar", "logit-bias", "penalties", "named-logprobs", "logprobs", "vectors", TOY),
    )


def rows_of(seed: int, count: int = 40) -> tuple[list[SamplingParams], list[list[int]]]:
    """Rows with everything that a watcher may look at, and answers in which all of it comes true for some."""
    rng = random.Random(seed)
    answers = [[rng.choice((1, *range(30, 60))) for _ in range(30)] for _ in range(count)]
    texts = [TOKENIZER.decode(ids) for ids in answers]
    params = [
        SamplingParams(
            temperature=0.0,
            seed=rng.choice((None, 7)),
            stop=rng.choice(((), tuple("aeis"), (text[4:6],), (text[9:10], text[3:7]))) if text[3:10].isascii() else (),
            stop_token_ids=rng.choice(((), (ids[8], ids[12]))),
            ignore_eos=rng.choice((True, False)),
            min_tokens=rng.choice((0, 0, 7)),
            logprobs=(rng.choice((None, 0, 1)), None)[ids[1] % 6 == 0],
            include_stop_str_in_output=rng.choice((True, False)),
            logit_bias=rng.choice(({}, {ids[3]: 4.0, 9: -100.0})),
            presence_penalty=rng.choice((0.0, 0.0, 0.5)),
            repetition_penalty=rng.choice((1.0, 1.0, 1.3)),
            allowed_token_ids=rng.choice((None, None, tuple(range(0, 300, 3)))),
            bad_words=rng.choice(((), WORDS)),
            logprob_token_ids=(9,) if ids[1] % 6 == 0 else (),
            repetition_detection={"max_pattern_size": 2, "min_count": 2} if ids[0] % 2 else None,
        )
        for ids, text in zip(answers, texts, strict=True)
    ]
    letters = StructuredOutputsParams(regex="[a-z ]+")
    formed = [i % 5 == 0 and not p.ignore_eos for i, p in enumerate(params)]
    params = [
        p.clone(structured_outputs=letters, min_tokens=0) if f else p for p, f in zip(params, formed, strict=True)
    ]
    return params, answers


def makers(name: str) -> list[Callable[[Surroundings], Watcher]]:
    """A watcher beside the one that ends samples, in the order of the catalogue."""
    return [registry.kind("watcher", known) for known in registry.names("watcher") if known in ("endings", name)]


def judged(name: str, seed: int, most: Callable[[], int]) -> list[object]:
    """How samples end whose tokens come `most()` at a time, and after how many tokens."""
    params, answers = rows_of(seed)
    workload, limits = Workload.of([[5, 6, 7]] * len(params), params), np.arange(len(params)) % 28 + 3
    requests = RequestTable()
    requests.extend(Lot(workload, build_forest(workload), DEFAULTS.end_ids(workload), limits))
    watchers = Watchers([make(Surroundings(requests, TOKENIZER, DEFAULTS.width)) for make in makers(name)])
    watchers.extend(params)
    said, found = np.zeros(len(answers), np.int64), dict[int, object]()
    while len(found) < len(answers):
        rows = np.array([row for row in range(len(answers)) if row not in found])
        parts = [answers[row][said[row] : said[row] + most()] for row in rows.tolist()]
        begin = np.append(0, np.cumsum([len(part) for part in parts]))
        tokens = np.concatenate(parts).astype(np.int64)
        logprobs = np.log(tokens + 2.0)
        result = StepResult(tokens, np.zeros(len(tokens), bool), logprobs, tokens[:, None], logprobs[:, None])
        drawing = Drawing(rows, rows, rows, said[rows], limits[rows], begin)
        outcomes = watchers.judge(SampledTokens(drawing, result))
        assert ((outcomes.keep == drawing.counts) | [i in outcomes.finished for i in range(len(rows))]).all()
        said[rows] += outcomes.keep
        found |= {int(rows[i]): (int(said[rows[i]]), finish) for i, finish in outcomes.finished.items()}
    return [found[row] for row in range(len(answers))]


@EACH
def test_tokens_that_come_together_are_judged_as_one_by_one(name: str) -> None:
    rng = random.Random(name)
    for seed in range(3):
        assert judged(name, seed, lambda: rng.randrange(1, 6)) == judged(name, seed, lambda: 1)


class Telling(FakeRunner):
    """Gives log-probabilities too."""

    def start(self, step: Step) -> Wait:
        result = super().start(step)()
        logprobs = np.log(result.token_ids + 2.0)
        return done(
            replace(result, logprobs=logprobs, top_ids=result.token_ids[:, None], top_logprobs=logprobs[:, None])
        )


def answers_of(
    name: str, runner: Runner, pages: int = 200, chunk: int = 16, script: Scripted | None = None
) -> dict[int, tuple[Completion, ...]]:
    """The answers to rows that share beginnings, under one watcher beside the one that ends them; with tokens that a
    script proposes, which knows the answers by row."""
    params, _ = rows_of(6, 32)
    workload = Workload.of([[30, 31, *range(40, 40 + i % 9), i] for i in range(len(params))], params)
    defaults = replace(DEFAULTS, eos=tuple(range(0, 300, 9)))  # so that some are drawn
    speculate = None if script is None else Speculate(script, Constant(3))
    scheduler = Scheduler(PagePool(pages, PAGE), chunk, speculate=speculate)
    loop = Loop(scheduler, runner, TOKENIZER, defaults, watchers=makers(name))
    if script is not None:
        script.whole = lambda rank, whole=script.whole: whole(int(scheduler.waiting.rows[rank]))  # type: ignore[misc]
    limits = np.arange(len(params)) % 20 + 1
    loop.add_lot(Lot(workload, build_forest(workload), defaults.end_ids(workload), limits))
    found = {output.row: output for output in loop.run() if isinstance(output, Output)}
    assert all(output.error is None for output in found.values())
    return {row: output.outputs for row, output in found.items()}


@EACH
def test_steps_may_be_decided_ahead(name: str) -> None:
    for pages in (24, 200):
        ahead = Ahead(Telling(pages, PAGE, 300))
        assert answers_of(name, ahead, pages) == answers_of(name, Telling(pages, PAGE, 300), pages)
        assert ahead.most_open == 2


@EACH
def test_rows_that_it_does_not_watch_do_not_feel_it(name: str) -> None:
    params, _ = rows_of(6, 32)
    watcher = registry.load("watcher", name, Surroundings(RequestTable(), TOKENIZER, 300))
    mine = {row for row, p in enumerate(params) if watcher.watches(p)}
    got, without = answers_of(name, Telling(200, PAGE, 300)), answers_of("endings", Telling(200, PAGE, 300))
    others = set(got) - mine
    assert [got[row] for row in others] == [without[row] for row in others]
    assert name in ("endings", "loops", "named-logprobs", "vectors") or any(got[row] != without[row] for row in mine)


@EACH
@pytest.mark.parametrize("ahead", [False, True])
def test_steps_may_check_proposed_tokens(name: str, ahead: bool) -> None:
    """Right ones and wrong ones; for rows that are watched in lockstep, none is proposed."""
    wanted, proposed = answers_of(name, Telling(200, PAGE, 300)), 0
    for right in (0.0, 0.7, 1.0):
        truth = {row: outputs[0].token_ids for row, outputs in wanted.items()}
        script = Scripted(truth.__getitem__, right, (0, 9, 18))
        runner: Runner = Telling(200, PAGE, 300)
        assert answers_of(name, Ahead(runner) if ahead else runner, chunk=200, script=script) == wanted
        proposed += script.proposed
    assert proposed > 50

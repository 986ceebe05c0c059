"""Every two techniques that can be asked for together compose or are refused by name: docs/pairs.md says which, and two
that compose give the answers of the one that may change them alone, or plain ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import pytest

from tests.conformance.pairs import (
    ARRIVING,
    BEGIN,
    DOC,
    END,
    RUN,
    Pair,
    asked,
    asked_for,
    kind_of,
    ledger,
    options_of,
    page,
    shown_by,
    together,
)
from tests.tiny_models import make_model
from umbel import LLM, SamplingParams
from umbel.batch.declared import Option
from umbel.cli.arguments import call
from umbel.errors import UsageError
from umbel.kernels.dispatch import kernels
from umbel.sched.policies.policy import Policy
from umbel.technique import Technique

PROMPTS = [
    [*(j * 7 % 290 + 3 for j in range(1100)), *((i * 31 + j * 5) % 290 + 3 for j in range(60))] for i in range(2)
]
WITH_DOCUMENTS = [
    {"prompt_token_ids": PROMPTS[0], "documents": [[0, 500], [500, 1100]]},
    {
        "prompt_token_ids": PROMPTS[1][500:1100] + PROMPTS[1][:500] + PROMPTS[1][1100:],
        "documents": [[0, 600], [600, 1100]],
    },
]
PARAMS = SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True)
DRAWN = map(asked, random.Random(5).sample(asked_for(), 40))
SOME = list(islice((pair for pair in DRAWN if shown_by(pair) == RUN), 8))
Tokens = list[tuple[int, ...]]


@dataclass(frozen=True)
class Runs:
    """Runs jobs of a model, and keeps what those of one technique, or of none, answered."""

    model: Path
    alone: dict[tuple[str, str], Tokens]

    def of(self, rows: Sequence[Technique], **changed: int) -> Tokens:
        """What a job with these techniques answers, each of which has done something."""
        options = {} if not rows else self._options(rows)
        usual = {"speculate": "off", "device": "cpu", "dtype": "float32", "kv_tokens": 4096, "allow_lossy": True}
        llm = LLM(str(self.model), **(usual | options | changed))
        with pytest.MonkeyPatch.context() as patch:
            rules = {row.family: row.name for row in rows if kind_of(row) == ARRIVING}
            patch.setattr("umbel.engine.build.Policy", partial(_policy, rules))
            prompts = WITH_DOCUMENTS if any(row.family == "reuse" for row in rows) else PROMPTS
            found = [output.outputs[0].token_ids for output in llm.generate(prompts, PARAMS, use_tqdm=False)]
        for row in rows:
            assert SIGNS.get(row.family, bool)(llm), f"{row.family} {row.name} did nothing"
        return found

    def of_one(self, row: Technique | None) -> Tokens:
        """What a job with one technique, or none, answers."""
        key = ("", "") if row is None else (row.family, row.name)
        if key not in self.alone:
            self.alone[key] = self.of([] if row is None else [row])
        return self.alone[key]

    def _options(self, rows: Sequence[Technique]) -> Mapping[str, Any]:
        taken = [row for row in rows if not kind_of(row)]
        found = dict((together(*taken) if len(taken) == 2 else options_of(taken[0]) if taken else {}) or {})
        settings = {row.name: _setting(row) for row in taken}
        places = {"model:PATH": f"model:{self.model}", "DIR": str(self.model.parent / "kv")}
        found = {name: places.get(str(value), value) for name, value in found.items()}
        if "technique" in found:
            found["technique"] = tuple(settings.get(name, name) for name in found["technique"])
        return found


def _policy(rules: Mapping[str, str], **parts: Any) -> Policy:
    return replace(Policy(**parts), **rules)


def _setting(row: Technique) -> str:
    """A technique that reads or computes less, with settings that these prompts and answers are long enough for."""
    if row.name == "skip-decode":
        return f"{row.name}:over=2"
    return f"{row.name}:{row.settings[0].name}=0.3" if row.family == "select" else row.name


def _reads_less(llm: LLM) -> bool:
    stats = llm.engine.stats()
    return stats.keys_read < stats.keys_whole


def _passes_less(llm: LLM) -> bool:
    stats = llm.engine.stats()
    return stats.layers_passed < stats.layers_whole


def _copies(llm: LLM) -> bool:
    return bool(llm.engine.stats().copied_prompt_tokens)


# What shows that a technique of a family has done something, where reports tell.
SIGNS: Mapping[str, Callable[[LLM], bool]] = {"select": _reads_less, "flow": _passes_less, "reuse": _copies}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("pairs")
    return Runs(make_model(folder / "model", "qwen3", max_position_embeddings=2048, num_hidden_layers=3), {})


def check(runs: Runs, pair: Pair) -> None:
    """Two techniques give what the one that may change answers gives alone, or plain answers where none may; two that
    both may, the same however prompts are cut. So do one that may and another backend of attention, which adds in
    another order: a last bit of that decides what is rounded, or picked."""
    rows = (pair.one, pair.other)
    lossy, adds = [row for row in rows if not row.exact], any(row.family == "attention" for row in rows)
    found = runs.of(rows)
    if len(lossy) == 2 or (lossy and adds):
        assert found == runs.of(rows, chunk=200)
    else:
        assert found == runs.of_one(lossy[0] if lossy else None)


def named(pair: Pair) -> str:
    return f"{pair.one.name}+{pair.other.name}".replace(" ", "-")


NEEDS_KERNELS = pytest.mark.skipif(kernels().native is None, reason="products of 8 bits need compiled kernels")


@NEEDS_KERNELS
@pytest.mark.parametrize("pair", SOME, ids=named)
def test_some_that_compose_are_each_what_it_is_alone(pair: Pair, runs: Runs) -> None:
    check(runs, pair)


def test_a_command_takes_one_value_of_an_option_that_names_techniques() -> None:
    def command(
        linear: Annotated[str, Option(help="{choices}.")] = "dense",
        technique: Annotated[list[str] | None, Option(help="{choices}.")] = None,
    ) -> int:
        """Take techniques."""
        return len(technique or ())

    assert call(command, ["--linear", "int8", "--linear=int8", "--technique=pages", "--technique=hip"], "umbel x") == 2
    with pytest.raises(UsageError, match="--linear: int8 and fp8: it takes one of them"):
        call(command, ["--linear", "int8", "--linear", "fp8"], "umbel x")


@NEEDS_KERNELS
@pytest.mark.nightly
def test_two_that_compose_are_each_what_it_is_alone(runs: Runs) -> None:
    wrong, pairs = [], [pair for pair in ledger() if shown_by(pair) == RUN]
    assert len(pairs) > 600
    for pair in pairs:
        try:
            check(runs, pair)
        except Exception as error:
            wrong.append(f"{named(pair)}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


@NEEDS_KERNELS
@pytest.mark.slow
def test_the_page_has_what_is_found_by_asking() -> None:
    written = DOC.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    assert written.strip() == page().strip(), "python -m tests.conformance.pairs writes it"

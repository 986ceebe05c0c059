"""What becomes of two techniques of the catalogue that are asked for together: found by asking for them.

`python -m tests.conformance.pairs` writes the tables of docs/pairs.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from tests.plan.workloads import MACHINE, SPEC, of
from umbel import registry
from umbel.attention.capabilities import Case, choose
from umbel.attention.pick import check_keeper
from umbel.catalog import CATALOG
from umbel.cluster.settings import check_replicas
from umbel.config import EngineConfig
from umbel.engine.cutting import check_cut
from umbel.engine.flowing import check_flow
from umbel.engine.inbox import check_arriving
from umbel.engine.shelving import check_kv_dir
from umbel.errors import UmbelError
from umbel.ir.experts import Experts
from umbel.linear.pick import pick_linear
from umbel.plan.layering import why_not_layered
from umbel.plan.planner import make_plan
from umbel.plan.reuse import check_reuse
from umbel.sched.policies.policy import Policy
from umbel.technique import Technique

DOC = Path(__file__).parents[2] / "docs" / "pairs.md"
BEGIN, END = "<!-- pairs: begin -->\n", "<!-- pairs: end -->\n"
WORKLOAD = of([[1, 2, 3, i] for i in range(3)], max_tokens=4)
ONE_VALUE = "one of them: the option takes one value"
EVERYWHERE, ARRIVING = "in every job", "for rows that come one by one"
# Techniques whose pairs no test runs: they need a GPU, a second process or machine, or a mixture of experts.
ELSEWHERE = frozenset({"triton", "flashinfer", "tensor", "data", "ray", "layered"})
RUN, ASKED, NOT_RUN = "run", "asked", "not run"


@dataclass(frozen=True)
class Pair:
    """Two techniques, and what says that they exclude each other; `why` is '' where they compose."""

    one: Technique
    other: Technique
    why: str

    @property
    def said(self) -> str:
        """Why, with "A" and "B" for the names and values of the two."""
        found = self.why
        for row, letter in ((self.one, "A"), (self.other, "B")):
            name, value = row.option
            found = re.sub(rf"(?<!\w){re.escape(f'{name}={value}')}(?!\w)", letter, found) if name else found
            found = re.sub(rf"(?<![\w-])'?{re.escape(row.name)}'?(?![\w-])", letter, found)
        return found


def kind_of(row: Technique) -> str:
    """How a technique comes into a job: by an option (''), everywhere, or where rows come one by one."""
    if row.option[0]:
        return ""
    usual = row.by != "policy" or getattr(Policy(), row.family) == row.name
    return EVERYWHERE if usual else ARRIVING


def options_of(row: Technique) -> dict[str, Any]:
    """The settings that take a technique."""
    name, value = row.option
    usual = getattr(EngineConfig("demo"), name)
    taken = int(value) if isinstance(usual, int) else (value,) if isinstance(usual, tuple) else value
    return {name: taken, **({"speculate": "model:PATH"} if row.family == "prompt" else {})}


def together(one: Technique, other: Technique) -> dict[str, Any] | None:
    """The settings that take both; None where an option would have to have two values."""
    first, second = options_of(one), options_of(other)
    for name in first.keys() & second.keys():
        if first[name] == second[name]:
            continue
        if not isinstance(first[name], tuple):
            return None
        first[name] = second[name] = first[name] + second[name]
    return first | second


def refusal(options: Mapping[str, Any]) -> str:
    """What refuses these settings of a job says, '' where nothing does; those of a GPU's kernels are asked of one."""
    on_gpu = options.get("attention_backend") in ("triton", "flashinfer")
    try:
        config = EngineConfig("demo", allow_lossy=True, dtype="float32", **options)
        if config.replicated:
            check_replicas(config)
        check_keeper(config, SPEC)
        check_flow(config.technique, SPEC, keep=config.keep)
        check_cut(config, SPEC)
        check_reuse(config, SPEC)
        if config.kv_dir is not None:
            check_kv_dir(config, SPEC)
        choose(case_of(config, on_gpu=on_gpu), config.attention_backend)
        if (on_gpu, config.linear) != (True, "fp8"):  # which asks the GPU itself
            pick_linear(torch.float32, torch.device("cuda" if on_gpu else "cpu"), config.linear)
        make_plan(WORKLOAD, SPEC, config, replace(MACHINE, device="cuda" if on_gpu else "cpu"))
    except UmbelError as error:
        return str(error)
    return ""


def case_of(config: EngineConfig, *, on_gpu: bool) -> Case:
    """What is asked of attention, with all kernels installed."""
    selects, kv = bool(registry.asked_of("select", config.technique)), config.kv_cache_dtype
    device, dtype = ("cuda", "bfloat16") if on_gpu else ("cpu", "float32")
    bits = {"fp8_kv": kv == "fp8", "int8_kv": kv == "int8", "fp8_instructions": on_gpu}
    return Case(device, dtype, (128,), selects=selects, **bits)


def arriving(row: Technique, other: Technique) -> str:
    """What refuses a rule for rows that come one by one together with a technique that an option takes."""
    config = EngineConfig("demo", allow_lossy=True, **options_of(other))
    try:
        check_arriving(config)
    except UmbelError as error:
        return str(error)
    return why_not_layered(replace(SPEC, experts=Experts(8, 2, 64)), config) if row.name == "layered" else ""


@cache
def ledger() -> tuple[Pair, ...]:
    """What comes of each of them: 9 ms a pair."""
    return tuple(map(asked, asked_for()))


def asked_for() -> list[tuple[Technique, Technique]]:
    """Every two techniques that are not both in every job."""
    known = [row for row in CATALOG if kind_of(row) != EVERYWHERE]
    return list(combinations(known, 2))


def asked(rows: tuple[Technique, Technique]) -> Pair:
    """What comes of asking for two techniques."""
    return Pair(*rows, _why(*rows))


def _why(one: Technique, other: Technique) -> str:
    kinds = kind_of(one), kind_of(other)
    if kinds == ("", ""):
        options = together(one, other)
        return ONE_VALUE if options is None else refusal(options)
    if kinds == (ARRIVING, ARRIVING):
        return ONE_VALUE if one.family == other.family else ""
    return arriving(one, other) if kinds[0] == ARRIVING else arriving(other, one)


@dataclass(frozen=True)
class Line:
    """Pairs of two families of which the same is said: their names on both sides, and how many they are."""

    one: str
    other: str
    pairs: tuple[Pair, ...]

    def markdown(self) -> str:
        """A row of the table."""
        why = self.pairs[0].said
        outcome = f"refused: {_plain(why)}" if why else "compose"
        if why == ONE_VALUE:
            outcome = "one of them: the option takes one value"
        return f"| {self.one} | {self.other} | {len(self.pairs)} | {outcome} | {shown_by(self.pairs[0])} |\n"


def shown_by(pair: Pair) -> str:
    """How a test shows what the ledger says of a pair."""
    if pair.why:
        return ASKED
    return NOT_RUN if {pair.one.name, pair.other.name} & ELSEWHERE else RUN


def lines() -> list[Line]:
    """The ledger by families and by what is said."""
    found: dict[tuple[str, str, str, str], list[Pair]] = {}
    for pair in ledger():
        found.setdefault((pair.one.family, pair.other.family, pair.said, shown_by(pair)), []).append(pair)
    return [
        Line(_names(one, [p.one for p in pairs]), _names(other, [p.other for p in pairs]), tuple(pairs))
        for (one, other, _, _), pairs in found.items()
    ]


def _names(family: str, rows: Sequence[Technique]) -> str:
    """A family with the names of some rows; alone where these are all that can be asked for."""
    names = list(dict.fromkeys(row.name for row in rows))
    every = [row.name for row in CATALOG if row.family == family and kind_of(row) != EVERYWHERE]
    return family if set(names) == set(every) else f"{family} {', '.join(names)}"


def _plain(text: str) -> str:
    """A refusal without what differs from machine to machine."""
    return re.sub(r"; here: .*", "", text).replace("|", "\\|")


def page() -> str:
    """The tables of docs/pairs.md."""
    counts = Counter("one" if p.why == ONE_VALUE else "refused" if p.why else "compose" for p in ledger())
    everywhere = [row for row in CATALOG if kind_of(row) == EVERYWHERE]
    named = ", ".join(dict.fromkeys(f"{row.family}: {row.name}" for row in everywhere))
    run = sum(shown_by(pair) == RUN for pair in ledger())
    head = (
        f"{len(CATALOG)} techniques, {len(ledger()):,} pairs that can be asked for: {counts['compose']:,} compose, of "
        f"which tests run {run:,}, {counts['refused']:,} are refused by name, {counts['one']:,} are two values of one "
        f"option.\n\nThe other {len(everywhere)} techniques are in every job in which there is something for them to "
        f"do, and so in those that tests run: {named}.\n\n"
    )
    table = "| one | other | pairs | what becomes of both | shown by |\n| --- | --- | --- | --- | --- |\n"
    return head + table + "".join(line.markdown() for line in lines())


def main() -> None:
    """Write the tables."""
    text = DOC.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    DOC.write_text(before + BEGIN + "\n" + page() + "\n" + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
